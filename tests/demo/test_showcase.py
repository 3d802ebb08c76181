from __future__ import annotations

import csv
import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from dpo_hub.cli.demo import _model_or_fallback
from dpo_hub.comparison.duet import Duet
from dpo_hub.demo.assistant import CONCISENESS
from dpo_hub.demo.guards import distance, guard
from dpo_hub.demo.showcase import run_demo
from dpo_hub.errors import ModelError
from dpo_hub.recipe import DEMO_MODEL, SMOLLM2
from dpo_hub.runs.run import Run
from dpo_hub.training import smollm2
from dpo_hub.training.policy import load_base


@pytest.fixture(scope="module")
def untrained() -> Duet:
    """Return the embedded model with an adapter that changes nothing yet."""
    model, tokenizer = load_base(DEMO_MODEL)
    torch.manual_seed(0)
    policy = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    return Duet.of(policy, tokenizer)


def test_guards_see_that_nothing_changed(untrained: Duet) -> None:
    """With an adapter of no effect all figures are as before, and the distance is none."""
    prompts = [[{"role": "user", "content": text}] for text in ("I am Marla. Hello!", "Where is order 12345?")]
    written = untrained.sample_ids(prompts, temperature=0.7, max_new_tokens=16)
    found = guard(untrained, written)
    assert found.surprise[0] == pytest.approx(found.surprise[1])
    assert found.repeats[0] == found.repeats[1]
    assert found.general[0] == pytest.approx(found.general[1])
    assert found.kept == pytest.approx(1)
    assert found.general_kl == pytest.approx(0, abs=1e-6)
    assert distance(untrained, written) == pytest.approx(0, abs=1e-6)


def test_guards_are_the_models_own_figures(untrained: Duet) -> None:
    """The surprise is the mean negative log-probability that a plain forward pass gives to the same tokens."""
    (written,) = untrained.sample_ids(
        [[{"role": "user", "content": "I am Marla. Hello!"}]], temperature=0.7, max_new_tokens=12
    )
    reply = [token for token in written.before if token not in untrained.tokenizer.all_special_ids]
    with torch.no_grad(), untrained.model.disable_adapter():
        logits = untrained.model(input_ids=torch.tensor([written.prompt + reply])).logits[0]
    picked = logits.log_softmax(-1)[range(len(written.prompt) - 1, len(written.prompt) + len(reply) - 1), reply]
    assert guard(untrained, [written]).surprise[0] == pytest.approx(-picked.mean().item(), rel=1e-4)


def test_without_the_weights_the_demo_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where SmolLM2 cannot be had, the embedded model shows the same, and why is told."""

    def refuse() -> Path:
        raise ModelError("Neither the Hub nor the package index can be reached.")

    monkeypatch.setattr(smollm2, "resolve_name", lambda name: name)
    monkeypatch.setattr(smollm2, "folder", refuse)
    assert _model_or_fallback(SMOLLM2) == DEMO_MODEL
    told = capsys.readouterr().err
    assert "Neither the Hub nor the package index can be reached." in told
    assert "The tiny model that ships with the package is used instead." in told


@pytest.mark.usefixtures("smollm2_home")
def test_a_few_pairs_teach_the_real_model_to_be_brief(tmp_path: Path) -> None:
    """Trained on two dozen pairs, its replies change and shorten, and it still knows what it knew."""
    file = tmp_path / "brief.csv"
    with (
        CONCISENESS.file.open(encoding="utf-8", newline="") as source,
        file.open("w", encoding="utf-8", newline="") as to,
    ):
        csv.writer(to).writerows(islice(csv.reader(source), 37))
    outcome = run_demo(CONCISENESS, SMOLLM2, file=file, held_out=0.3, epochs=2.0)
    run = Run.open(outcome.run)
    assert run.recipe.model == SMOLLM2
    assert run.report["base"] == smollm2.ORIGIN
    then, now = outcome.details["words a reply"]
    assert now < then
    assert outcome.guards
    assert outcome.guards.kept > 0.95
    assert outcome.guards.general_kl < 1
    assert json.loads((run.path / "evaluation.json").read_text())["changed"] > 0.5
    assert "dequantised from Q4_1" in run.card
