"""A base model that comes as GGUF: trained, talked to, merged, published, and told of where it cannot be read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.comparison.duet import Duet
from dpo_hub.demo import FILES
from dpo_hub.errors import MissingExtraError, ModelError
from dpo_hub.hub.card import render_card
from dpo_hub.hub.export import export
from dpo_hub.jobs.worker import work
from dpo_hub.runs.base_model import EMBEDDED
from dpo_hub.training.policy import PLAIN_TEMPLATE, load_base, load_base_tokenizer
from tests.cli.command import dpo_hub
from tests.hub.conftest import ADA, Python
from tests.hub.loopback import Hub, serving

HIDDEN, WIDE, LAYERS, HEADS = 32, 64, 2, 2
Q = GGMLQuantizationType.Q4_1


def write_gguf(
    path: Path, *, architecture: str = "llama", kind: GGMLQuantizationType = Q, template: str | None = None
) -> Path:
    """Write a tiny random model with the demo's tokenizer."""
    tokenizer = json.loads((EMBEDDED / "tokenizer.json").read_text(encoding="utf-8"))
    loaded = AutoTokenizer.from_pretrained(EMBEDDED)
    special = {token["id"] for token in tokenizer["added_tokens"]}
    words = loaded.convert_ids_to_tokens(range(len(loaded)))
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_types([3 if number in special else 1 for number in range(len(words))])
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(loaded.eos_token_id)
    writer.add_bos_token_id(loaded.eos_token_id)
    if template:
        writer.add_chat_template(template)
    for name, shape in _shapes(len(words)).items():
        weights = np.random.default_rng(len(name)).normal(0, 0.1, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, np.ones(shape, dtype=np.float32))
        else:
            writer.add_tensor(name, quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _shapes(words: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (words, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        block = {f"attn_{part}": (HIDDEN, HIDDEN) for part in ("q", "k", "v", "output")}
        block |= {"ffn_gate": (WIDE, HIDDEN), "ffn_up": (WIDE, HIDDEN), "ffn_down": (HIDDEN, WIDE)}
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
        shapes |= {f"blk.{layer}.{name}.weight": (HIDDEN,) for name in ("attn_norm", "ffn_norm")}
    return shapes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a finished run on a GGUF file that is named by its folder, as a person standing beside it would."""
    folder = tmp_path_factory.mktemp("secret")
    (folder / "model").mkdir()
    write_gguf(folder / "model" / "tiny.Q4_1.gguf")
    lines = (FILES / "tone.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "few.csv").write_text("".join(lines[:25]), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPO_HUB_HOME", str(folder / "home"))
        patch.chdir(folder)
        recipe = Recipe(model="model", epochs=1, batch_size=4, learning_rate=1e-2, evaluations=0, held_out=0.2)
        run = Run.create(read_preferences(folder / "few.csv"), recipe)
    return work(run)


def test_a_run_on_gguf_says_what_it_was_trained_on(trained: Run) -> None:
    """Its recipe has the file's whole path; report, log and card have its name and how it was quantised."""
    model = Path(trained.recipe.model)
    assert (model.is_absolute(), model.name) == (True, "tiny.Q4_1.gguf")
    assert trained.report["base"] == {"file": "tiny.Q4_1.gguf", "type": "Q4_1"}
    assert "read from tiny.Q4_1.gguf, dequantised from Q4_1" in trained.log.read_text(encoding="utf-8")
    card = trained.card
    assert "Trained on `tiny.Q4_1.gguf`, dequantised from Q4_1." in card
    assert 'from_pretrained("path/to/the/base/model", gguf_file="tiny.Q4_1.gguf")' in card
    assert "--model path/to/the/base/model.gguf" in card
    assert "secret" not in card
    assert "base_model:" not in card


def test_the_cards_code_loads_what_was_trained(trained: Run, tmp_path: Path) -> None:
    """With the folder's path in its place, the code on the card writes a reply."""
    code = trained.card.partition("```python\n")[2].partition("```")[0]
    code = code.replace("path/to/the/base/model", str(Path(trained.recipe.model).parent))
    code = code.replace('adapter = "adapter"', f"adapter = {str(trained.adapter)!r}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_one_talks_to_a_run_on_gguf(trained: Run) -> None:
    """Base and adapter both reply, and the plain template stands in for the one that the file lacks."""
    assert load_base_tokenizer(trained.recipe.model).chat_template == PLAIN_TEMPLATE
    (both,) = Duet.open(trained).replies([[{"role": "user", "content": "Hello"}]])
    assert isinstance(both.before, str)
    assert isinstance(both.after, str)


def test_a_run_on_gguf_is_merged_to_float32(trained: Run, tmp_path: Path) -> None:
    """The merged model is a plain one, without a trace of GGUF, and compared with base and adapter."""
    done = export(trained, tmp_path / "merged")
    assert (done.merged.dtype, done.merged.worst < 1e-4) == ("float32", True)
    config = json.loads((done.folder / "config.json").read_text(encoding="utf-8"))
    assert (config["dtype"], "quantization_config" in config) == ("float32", False)
    assert AutoModelForCausalLM.from_pretrained(done.folder).dtype == torch.float32


@pytest.mark.full
def test_a_run_on_gguf_is_published_without_its_path(trained: Run, tmp_path: Path) -> None:
    """On the Hub, no file has the path, and the adapter that is fetched computes the same on the file."""
    knows = Hub({ADA: "ada"}, frozenset(), {})
    with serving(knows):
        python = Python(knows.endpoint, tmp_path / "hf")
        publish = ("-m", "dpo_hub", "publish", trained.path, "ada/tiny", "--token", ADA, "--merge")
        done = python(*publish)
    assert done.returncode == 0, done.stderr
    assert "gives the same logits on" in done.stdout
    files = knows.repos["ada/tiny"].head.files | knows.repos["ada/tiny-merged"].head.files
    assert not [name for name, content in files.items() if b"secret" in content]
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "a local GGUF file"
    assert json.loads(files["recipe.json"])["model"] == "a local GGUF file"
    assert "read from `tiny.Q4_1.gguf`, dequantised from Q4_1" in files["README.md"].decode()


def test_gguf_that_holds_plain_numbers(tmp_path: Path) -> None:
    """A file of 16-bit numbers is not called quantised, and its own chat template is taken."""
    file = write_gguf(tmp_path / "half.gguf", kind=GGMLQuantizationType.F16, template="{{ messages[0]['content'] }}")
    model, tokenizer = load_base(str(file))
    assert (model.dtype, tokenizer.chat_template) == (torch.float32, "{{ messages[0]['content'] }}")
    model.save_pretrained(tmp_path / "saved")


def test_several_files_in_a_folder(tmp_path: Path) -> None:
    """Which of them is meant has to be said, before a run is made of it."""
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"has 2 GGUF files \(a\.gguf, b\.gguf.*Name one of them"):
        load_base(str(tmp_path))


@pytest.mark.parametrize("left", [0, 3, 500, 60_000, -200])
def test_a_torn_file(tmp_path: Path, left: int) -> None:
    """Wherever it breaks off, that is said, and what to do."""
    whole = write_gguf(tmp_path / "torn.gguf").read_bytes()
    (tmp_path / "torn.gguf").write_bytes(whole[:left])
    with pytest.raises(ModelError, match=r"torn\.gguf is torn, or no GGUF: .* Fetch it again"):
        load_base(str(tmp_path / "torn.gguf"))


def test_an_architecture_that_cannot_be_read(tmp_path: Path) -> None:
    """It is named, and the original weights are asked for."""
    file = write_gguf(tmp_path / "new.gguf", architecture="rwkv7")
    with pytest.raises(ModelError, match=r"architecture rwkv7, which Transformers .* cannot read .* original weights"):
        load_base(str(file))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A name that ends as a GGUF file's is not looked for on the Hub."""
    with pytest.raises(ModelError, match=r"There is no GGUF file .*gone\.gguf\. Check the path"):
        load_base(str(tmp_path / "gone.gguf"))


def test_without_the_package_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said."""
    file = write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"needs the package gguf.*dpo_hub\[train\]"):
        load_base(str(file))


def test_an_adapter_beside_the_file(tmp_path: Path) -> None:
    """It would be loaded with the file unseen, so it is refused."""
    file = write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="An adapter lies beside"):
        load_base(str(file))


def test_the_command_line_tells_it_in_a_line(few_pairs: Path, tmp_path: Path) -> None:
    """`check`, `preflight` and `train` end with one sentence and exit code 2."""
    (tmp_path / "no.gguf").write_bytes(b"no")
    for command in ("check", "preflight", "train"):
        done = dpo_hub(command, few_pairs, "--model", tmp_path / "no.gguf")
        assert done.returncode == 2
        assert "is torn, or no GGUF" in done.stderr.strip().splitlines()[-1]


def test_a_files_name_is_inert_on_the_card(trained: Run) -> None:
    """Whatever a file is called, it ends no span and no string on the card."""
    kept = trained.report
    name = 'a` <img src=x> "b.gguf'
    try:
        trained.write("report.json", json.dumps(kept | {"base": {"file": name, "type": "Q4_1"}}))
        card = render_card(trained)
    finally:
        trained.write("report.json", json.dumps(kept))
    assert f"Trained on ``{name}``, dequantised" in card
    assert r'\u003e \"b.gguf")' in card
