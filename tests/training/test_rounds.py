"""A run that goes on from another's adapter: that is its reference, and what it leaves is one adapter for the base."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.comparison.accuracy import accuracy
from dpo_hub.comparison.duet import Duet
from dpo_hub.comparison.lens import Lens
from dpo_hub.demo import FILES
from dpo_hub.errors import RecipeError, RunError
from dpo_hub.runs.base_model import EMBEDDED
from dpo_hub.runs.state import State
from dpo_hub.training.policy import as_reference
from dpo_hub.training.train import Trained, train
from tests.training.test_trainer import load_adapter


def pairs_file(folder: Path, use: str) -> Path:
    """The first forty pairs of an application."""
    lines = (FILES / f"{use}.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    path = folder / f"{use}.csv"
    path.write_text("".join(lines[:41]), encoding="utf-8")
    return path


def finished(run: Run) -> Trained:
    trained = train(run)
    run.write("evaluation.json", json.dumps(trained.evaluation))
    run.set_state(State("finished"))
    return trained


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of preference files, and a home of its own for the runs on them."""
    folder = tmp_path_factory.mktemp("rounds")
    for use in ("tone", "conciseness"):
        pairs_file(folder, use)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPO_HUB_HOME", str(folder / "home"))
        yield folder


@pytest.fixture(scope="module")
def first(files: Path) -> Run:
    run = Run.create(read_preferences(files / "tone.csv"), Recipe.for_model(sft_weight=0, beta=0.3, batch_size=8))
    finished(run)
    return run


def next_round(first: Run, file: Path, **settings: Any) -> Run:
    settings = {"learning_rate": first.recipe.learning_rate} | settings
    return Run.create(read_preferences(file), first.recipe.next_round(**settings), previous=first)


@pytest.fixture(scope="module")
def both(first: Run, files: Path) -> tuple[Run, Trained]:
    """The second round, and what training left in memory."""
    run = next_round(first, files / "conciseness.csv")
    return run, finished(run)


def test_it_begins_as_its_reference(both: tuple[Run, Trained], first: Run) -> None:
    """Before the first update the policy is the reference, and both are the adapter of the round before."""
    run, _ = both
    assert run.report["continues"] == first.id
    assert (run.metrics[0]["chosen_reward"], run.metrics[0]["rejected_reward"]) == pytest.approx((0, 0), abs=1e-4)
    assert run.metrics[-1]["margin"] > 0.05
    own, before = Lens.open(run), Lens.open(first)
    pair = run.pairs("held_out")[0]
    ids = own.tokenizer.apply_chat_template([*pair.prompt, *pair.chosen], return_tensors="pt", return_dict=True)
    with torch.no_grad(), as_reference(own.model):
        assert torch.equal(own.model(**ids).logits, before.model(**ids).logits)
    assert own.model.active_adapters == ["default"]


def test_the_saved_adapter_alone_gives_the_logits_of_training(both: tuple[Run, Trained]) -> None:
    """It is one adapter, of the same rank, on the base model that the first round began with."""
    run, trained = both
    alone = load_adapter(run)
    config = json.loads((run.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["base_model_name_or_path"], config["r"]) == ("demo", run.recipe.lora_r)
    assert not (run.adapter / "ref").exists()
    base = AutoModelForCausalLM.from_pretrained(EMBEDDED).eval()
    with torch.no_grad():
        for pair in run.pairs("held_out"):
            ids = trained.tokenizer.apply_chat_template(list(pair.prompt), return_tensors="pt", return_dict=True)
            assert torch.equal(alone(**ids).logits, trained.model.eval()(**ids).logits)
            assert not torch.allclose(alone(**ids).logits, base(**ids).logits, atol=1e-2)


def test_rewards_are_against_the_round_before(both: tuple[Run, Trained]) -> None:
    """The lens has the figures that TRL measured, and they are not those against the base model."""
    run, _ = both
    lens, held_out = Lens.open(run), run.pairs("held_out")
    measured = accuracy(lens, held_out, [])
    names = ("margin", "reward_accuracy", "chosen_reward", "rejected_reward")
    assert {name: getattr(measured, name) for name in names} == pytest.approx(
        {name: run.evaluation[name] for name in names}, abs=1e-4
    )
    lens.model.delete_adapter("ref")
    assert accuracy(lens, held_out, []).chosen_reward != pytest.approx(measured.chosen_reward, abs=1e-2)


def test_before_is_what_the_round_before_says(both: tuple[Run, Trained], first: Run) -> None:
    """In the duet of the second round alone; beside the first one, the base model is "before"."""
    run, trained = both
    prompts = [pair.prompt for pair in run.pairs("held_out")[:3]]
    was = Duet.open(first).replies(prompts, temperature=0, max_new_tokens=24)
    now = Duet.open(run).replies(prompts, temperature=0, max_new_tokens=24)
    assert [both.before for both in now] == [both.after for both in was]
    assert now != was
    assert Duet.of(trained.model, trained.tokenizer).replies(prompts, temperature=0, max_new_tokens=24) == now
    beside = ["", "", ""]
    for step in Duet.open(first, run).stream([prompts[0]] * 3, temperature=0, max_new_tokens=24):
        beside = [text + new for text, new in zip(beside, step, strict=True)]
    assert beside == [was[0].before, was[0].after, now[0].after]


def test_what_the_base_model_said_of_the_same_pairs_is_not_taken(first: Run, files: Path, home: Path) -> None:
    """The reference's log-probabilities of a second round on the first one's pairs are measured anew, and kept."""
    known = home / "cache" / "reference"
    train(Run.create(read_preferences(files / "tone.csv"), first.recipe))
    assert len([*known.iterdir()]) == 1
    for _ in range(2):
        run = next_round(first, files / "tone.csv")
        train(run)
        assert run.metrics[0]["chosen_reward"] == pytest.approx(0, abs=1e-4)
        assert len([*known.iterdir()]) == 2


@pytest.mark.parametrize("settings", [pytest.param({"engine": "trl"}, marks=pytest.mark.full), {"epochs": 0.5}])
def test_every_way_of_training_has_the_same_reference(first: Run, files: Path, settings: Mapping[str, Any]) -> None:
    """Plain TRL measures the same, and so do steps that each ask the reference, for want of a whole epoch."""
    of = [next_round(first, files / "conciseness.csv", **also) for also in ({}, settings)]
    for run in of:
        train(run)
    one, other = (run.metrics for run in of)
    shared = range(min(len(one), len(other)))
    names = ("margin", "chosen_reward", "chosen_logp")
    assert [other[0][name] for name in names] == pytest.approx([one[0][name] for name in names], abs=1e-3)
    assert len(shared) > 1


def test_a_stopped_round_comes_to_the_same(both: tuple[Run, Trained], first: Run, files: Path, tmp_path: Path) -> None:
    """Its folder has all that it needs: it goes on where the first round was removed."""
    undisturbed, _ = both
    gone = Run(tmp_path / first.id)
    shutil.copytree(first.path, gone.path)
    run = next_round(gone, files / "conciseness.csv")
    gone.remove()

    def stop(metrics: Mapping[str, float], _steps: int) -> None:
        if metrics["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        train(run, stop)
    train(run)
    assert run.metrics == undisturbed.metrics
    weights = "adapter_model.safetensors"
    assert (run.adapter / weights).read_bytes() == (undisturbed.adapter / weights).read_bytes()


def test_what_the_adapter_has_settled_cannot_be_asked_for(first: Run, files: Path) -> None:
    """Base model and rank are the adapter's, and the rest may change; an unfinished run is none to go on from."""
    with pytest.raises(RecipeError, match="lora_r is 4, and the adapter to go on from has 16"):
        first.recipe.next_round(lora_r=4)
    forced = replace(first.recipe, force=True)
    lower = first.recipe.learning_rate / 10
    assert forced.next_round(beta=0.7, model=None) == replace(first.recipe, beta=0.7, learning_rate=lower, epochs=1.0)
    unfinished = next_round(first, files / "tone.csv")
    with pytest.raises(RunError, match="is queued, not finished"):
        next_round(unfinished, files / "tone.csv")
