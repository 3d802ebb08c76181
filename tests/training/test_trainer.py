from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.nn.functional import log_softmax
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from dpo_hub.demo import FILES
from dpo_hub.errors import ModelError
from dpo_hub.preferences import PreferencePair, read_preferences
from dpo_hub.preferences.pairs import Messages
from dpo_hub.recipe import ENGINES, Recipe
from dpo_hub.runs.base_model import EMBEDDED
from dpo_hub.runs.run import Run
from dpo_hub.training.checkpoints import flush
from dpo_hub.training.train import Trained, train


def make_run(file: Path, **settings: Any) -> Run:
    return Run.create(read_preferences(file), Recipe.for_model(**settings))


def load_adapter(run: Run) -> PeftModel:
    """Load as anyone would who has only the adapter folder and the base model."""
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(EMBEDDED), run.adapter).eval()


def reply_logps(model: PeftModel, prompt: Messages, reply: Messages) -> list[float]:
    """Return log π(y_t | x, y_<t) for each token of the reply, by the plainest means: one row, full logits."""
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    asked = tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template([*prompt, *reply], return_dict=False)
    assert whole[: len(asked)] == asked
    with torch.no_grad():
        logps = log_softmax(model(input_ids=torch.tensor([whole])).logits[0].double(), dim=-1)
    return [logps[at - 1, whole[at]].item() for at in range(len(asked), len(whole))]


def expected_figures(
    model: PeftModel, pairs: Sequence[PreferencePair], beta: float, sft_weight: float
) -> dict[str, float]:
    """Compute the loss of Rafailov et al. 2023, equation 7, and the implicit rewards of section 4, pair by pair.

    The term beside it is −Σ log π(chosen) / Σ |chosen|.
    """
    losses, chosen, rejected, tokens, nll = [], [], [], 0, 0.0
    for pair in pairs:
        policy = {part: reply_logps(model, pair.prompt, getattr(pair, part)) for part in ("chosen", "rejected")}
        with model.disable_adapter():
            reference = {part: reply_logps(model, pair.prompt, getattr(pair, part)) for part in ("chosen", "rejected")}
        rewards = {part: beta * (sum(policy[part]) - sum(reference[part])) for part in policy}
        losses.append(math.log1p(math.exp(-(rewards["chosen"] - rewards["rejected"]))))
        chosen.append(rewards["chosen"])
        rejected.append(rewards["rejected"])
        tokens += len(policy["chosen"])
        nll -= sum(policy["chosen"])
    margins = [c - r for c, r in zip(chosen, rejected, strict=True)]
    return {
        "loss": sum(losses) / len(losses) + sft_weight * nll / tokens,
        "chosen_reward": sum(chosen) / len(chosen),
        "rejected_reward": sum(rejected) / len(rejected),
        "margin": sum(margins) / len(margins),
        "reward_accuracy": sum(margin > 0 for margin in margins) / len(margins),
    }


@pytest.mark.parametrize(("beta", "sft_weight", "batch_size"), [(0.1, 0.0, 3), (0.3, 0.5, 8)])
def test_the_objective_is_the_papers(few_pairs: Path, beta: float, sft_weight: float, batch_size: int) -> None:
    """Loss and rewards computed from the paper's equation agree with what training reports, in uneven batches too."""
    run = make_run(few_pairs, beta=beta, sft_weight=sft_weight, batch_size=batch_size)
    trained = train(run)
    expected = expected_figures(load_adapter(run), run.pairs("held_out"), beta, sft_weight)
    assert trained.evaluation["margin"] > 0.01, "the adapter has learned nothing, so the comparison would be empty"
    assert {name: trained.evaluation[name] for name in expected} == pytest.approx(expected, abs=1e-4)


def test_training_starts_at_the_reference(few_pairs: Path) -> None:
    """Before the first update policy and reference are the same: loss ln 2, rewards 0."""
    run = make_run(few_pairs, sft_weight=0)
    steps: list[tuple[Mapping[str, float], int]] = []
    train(run, lambda metrics, total: steps.append((metrics, total)))
    first, total = steps[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert first["margin"] == pytest.approx(0, abs=1e-4)
    assert [metrics["step"] for metrics, _ in steps] == list(range(1, total + 1)) == [m["step"] for m in run.metrics]


@pytest.fixture
def trained(few_pairs: Path) -> tuple[Run, Trained]:
    run = make_run(few_pairs)
    return run, train(run)


def test_the_saved_adapter_is_the_trained_policy(trained: tuple[Run, Trained]) -> None:
    """Loaded with plain PEFT, the adapter gives the logits that the policy gave in training."""
    run, policy = trained
    ids = torch.arange(5, 25).unsqueeze(0)
    with torch.no_grad():
        before, after = policy.model.eval()(input_ids=ids).logits, load_adapter(run)(input_ids=ids).logits
        base = AutoModelForCausalLM.from_pretrained(EMBEDDED)(input_ids=ids).logits
    assert torch.equal(before, after)
    assert not torch.allclose(base, after, atol=1e-3)


def test_the_same_recipe_gives_the_same_bytes(trained: tuple[Run, Trained], few_pairs: Path) -> None:
    """A run repeated on the CPU leaves the same adapter folder, byte for byte."""
    first = trained[0]
    second = make_run(few_pairs)
    train(second)
    files = sorted(path.name for path in first.adapter.iterdir())
    assert "adapter_model.safetensors" in files
    assert files == sorted(path.name for path in second.adapter.iterdir())
    for name in files:
        assert (first.adapter / name).read_bytes() == (second.adapter / name).read_bytes(), name


def test_the_adapter_is_on_the_disk_before_its_folder_has_its_name(
    few_pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file, the folder, and then the name that it gets: a power cut cannot leave an empty adapter."""
    flushed: list[tuple[str, bool]] = []
    run = make_run(few_pairs)

    def record(path: Path) -> None:
        flush(path)
        flushed.append((path.name, run.adapter.exists()))

    monkeypatch.setattr("dpo_hub.training.train.flush", record)
    train(run)
    *before, (last, named) = flushed
    assert {name for name, _ in before} == {".adapter.aside", *(path.name for path in run.adapter.iterdir())}
    assert not any(done for _, done in before)
    assert (last, named) == (run.path.name, True)


def test_no_local_path_is_saved(trained: tuple[Run, Trained], tmp_path: Path) -> None:
    """The adapter folder names neither the home nor the place of the package."""
    for path in trained[0].adapter.iterdir():
        content = path.read_bytes()
        assert str(tmp_path).encode() not in content
        assert str(EMBEDDED).encode() not in content


def test_prompts_that_cannot_fit_are_told(few_pairs: Path) -> None:
    """Where no prompt fits, training does not start on nothing."""
    with pytest.raises(ModelError, match="max_length, 8 tokens, is too short for all 32 train prompts"):
        train(make_run(few_pairs, max_length=8))


def test_what_max_length_takes_is_counted(few_pairs: Path) -> None:
    """Replies that are cut and pairs that are dropped are told in the run's report."""
    run = make_run(few_pairs, max_length=60)
    train(run)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    for split in ("train", "held_out"):
        lengths = [
            max(
                len(tokenizer.apply_chat_template([*pair.prompt, *reply], return_dict=False))
                for reply in (pair.chosen, pair.rejected)
            )
            for pair in run.pairs(split)
        ]
        assert run.report["cut"][split] == sum(length > 60 for length in lengths) > 0
        assert run.report["dropped"][split] == 0


TOOLS_TEMPLATE = """{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}{% for message in messages %}
{{ message.role }}: {{ message.content }}
{% for call in message.tool_calls or [] %}{% for value in call.function.arguments.values() %}
{% if value is none %}{{ raise_exception("an argument of another call") }}{% endif %}{{ value }}
{% endfor %}{% endfor %}{{ eos_token if message.role == "assistant" }}{% endfor %}
{% if add_generation_prompt %}assistant: {% endif %}"""


def test_tool_calls_reach_the_chat_template_as_they_are(tmp_path: Path) -> None:
    """Each call keeps its own arguments and no one else's, and pairs with and without tools train together."""
    base = tmp_path / "base"
    shutil.copytree(EMBEDDED, base)
    (base / "chat_template.jinja").write_text(TOOLS_TEMPLATE)
    rows = []
    for number, arguments in enumerate([{"city": "Oslo"}, {"order": 7}, {"city": "Rome"}, {"order": 9}]):
        call = {"type": "function", "function": {"name": "look_up", "arguments": arguments}}
        tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
        rows.append(
            {
                "prompt": [{"role": "user", "content": f"Question {number}"}],
                "chosen": [{"role": "assistant", "content": "", "tool_calls": [call]}],
                "rejected": [{"role": "assistant", "content": "No idea."}],
                **({"tools": [tool], "chat_template_kwargs": {"lang": "en"}} if number % 2 else {}),
            }
        )
    file = tmp_path / "tools.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    run = make_run(file, model=str(base), epochs=1)
    assert train(run).evaluation["pairs"] == 1
    (held_out,) = run.pairs("held_out")
    assert held_out.messages in [rows[pair] for pair in range(4)]


def curves(file: Path, engine: str, **settings: Any) -> tuple[Run, list[dict[str, float]]]:
    run = make_run(file, engine=engine, **settings)
    train(run)
    return run, run.metrics


@pytest.mark.full
def test_fifty_steps_follow_plain_trl() -> None:
    """On the demo's data, loss and rewards of the shared prefix stay with plain TRL's throughout."""
    usual, ours = (
        curves(FILES / "safety.csv", engine, batch_size=8, epochs=1, learning_rate=1e-3)[1] for engine in ENGINES[::-1]
    )
    assert len(usual) == 50
    for one, other in zip(usual, ours, strict=True):
        assert abs(one["loss"] - other["loss"]) < 1e-3, one["step"]
        assert other["margin"] == pytest.approx(one["margin"], rel=1e-2, abs=1e-2), one["step"]
    assert usual[-1]["margin"] > 1, "nothing was learned, so the comparison would be empty"


def test_the_engine_is_told(few_pairs: Path) -> None:
    """Report and recipe say what computed the log-probabilities; `trl` is taken as asked."""
    for engine, told in (("shared-prefix", "shared-prefix"), ("trl", "trl, as asked")):
        run, _ = curves(few_pairs, engine, epochs=1)
        assert (run.recipe.engine, run.report["engine"]) == (engine, told)


def save_base(folder: Path, architecture: str, **config: Any) -> str:
    """Save a small random model with the demo's tokenizer; return what a recipe calls it."""
    made = AutoConfig.for_model(architecture, vocab_size=1024, hidden_size=32, **config)
    AutoModelForCausalLM.from_config(made).save_pretrained(folder)
    AutoTokenizer.from_pretrained(EMBEDDED).save_pretrained(folder)
    return str(folder)


def test_a_model_that_cannot_be_served_trains_with_trl(
    few_pairs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log says so and why; what was asked for is kept, and the reason outlasts a resume."""
    base = save_base(tmp_path / "base", "bloom", n_layer=2, n_head=2, pad_token_id=0)
    with caplog.at_level("WARNING", "dpo_hub"):
        run, metrics = curves(few_pairs, "shared-prefix", model=base, learning_rate=1e-3)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("dpo_hub")] == [
        "the shared prefix cannot serve this model (its attention cannot be exchanged); plain TRL trains it, "
        "which is slower"
    ]
    for _ in range(2):
        assert (run.asked.engine, run.recipe.engine) == ("shared-prefix", "trl")
        assert run.report["engine"] == "trl: its attention cannot be exchanged"
        train(run)  # goes on from its last checkpoint, which is its end
    assert len(metrics) == 5
    assert run.adapter.is_dir()


def test_the_reference_is_measured_once(few_pairs: Path, caplog: pytest.LogCaptureFixture, home: Path) -> None:
    """A second recipe on the same pairs, split another way, finds it on disk; a part of an epoch asks as it goes."""
    with caplog.at_level("INFO", "dpo_hub"):
        curves(few_pairs, "shared-prefix", epochs=1)
        curves(few_pairs, "shared-prefix", epochs=1, beta=0.3, seed=1)
        curves(few_pairs, "shared-prefix", epochs=0.5)
    said = [record.getMessage() for record in caplog.records if "base model says" in record.getMessage()]
    assert said == [
        "measuring what the base model says of 40 pairs",
        "what the base model says of these pairs is known from an earlier run",
        "measuring what the base model says of 8 pairs",
    ]
    assert len(list((home / "cache" / "reference").iterdir())) == 2


def test_the_reference_has_no_dropout(few_pairs: Path, tmp_path: Path, home: Path) -> None:
    """A model that drops out by a function of its own, which no one switches off, is measured the same twice."""
    small = {"word_embed_proj_dim": 32, "ffn_dim": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
    base = save_base(tmp_path / "base", "opt", dropout=0.5, **small)
    found = []
    for seed in (0, 1):
        curves(few_pairs, "shared-prefix", model=base, seed=seed)
        (file,) = (home / "cache" / "reference").iterdir()
        found.append((file.name, file.read_bytes()))
        file.unlink()
    assert found[0] == found[1]


@pytest.mark.full
def test_where_memory_is_short_activations_are_computed_twice(
    few_pairs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run says so and comes to the same."""
    _, plenty = curves(few_pairs, "shared-prefix", epochs=1)
    monkeypatch.setattr("dpo_hub.training.forecast.free_bytes", lambda _device: 100_000_000)
    with caplog.at_level("INFO", "dpo_hub"):
        run = make_run(few_pairs, epochs=1)
        policy: Any = train(run).model
    assert policy.get_base_model().is_activation_checkpointing
    assert any("they will be computed twice" in record.getMessage() for record in caplog.records)
    assert [step["loss"] for step in run.metrics] == pytest.approx([step["loss"] for step in plenty], abs=1e-5)
