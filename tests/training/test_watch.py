from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerControl, TrainerState

from dpo_hub.errors import ModelError
from dpo_hub.preferences import read_preferences, text_of
from dpo_hub.recipe import SHARED_PREFIX, TRL, Recipe
from dpo_hub.runs.base_model import EMBEDDED
from dpo_hub.runs.run import Run
from dpo_hub.training import trainer as training
from dpo_hub.training.best import best_of, keep_best, restore_best
from dpo_hub.training.metrics import STEP_KEYS, TRL_KEYS
from dpo_hub.training.probe import NGRAM, PROMPTS, Probe, points, preserving_model_state, repeated, select_pairs
from dpo_hub.training.train import train
from dpo_hub.training.watch import PAIRS, Watch, pairs_at_a_point


def make_run(file: Path, **settings: Any) -> Run:
    return Run.create(read_preferences(file), Recipe.for_model(**settings))


def weights(run: Run) -> bytes:
    return (run.adapter / "adapter_model.safetensors").read_bytes()


def test_points_are_spread_evenly_and_end_with_the_run() -> None:
    """As many as were asked for, or one a step where there are fewer steps; none if none were."""
    assert sorted(points(50, 5)) == [10, 20, 30, 40, 50]
    assert sorted(points(7, 3)) == [2, 5, 7]
    assert sorted(points(3, 100)) == [1, 2, 3]
    assert points(50, 0) == frozenset()


def test_short_runs_are_measured_on_fewer_pairs() -> None:
    """Measuring never takes much of a run's time, and never more pairs than a figure needs."""
    assert pairs_at_a_point(Recipe(), 1000) == PAIRS
    assert pairs_at_a_point(Recipe.for_model(), 50) == 32
    assert pairs_at_a_point(Recipe(evaluations=100), 100) == 16


def test_looking_changes_nothing(few_pairs: Path) -> None:
    """The adapter has the same bytes, and the metrics the same figures, however often the run was measured."""
    quiet, watched = (make_run(few_pairs, evaluations=count) for count in (0, 3))
    for run in (quiet, watched):
        torch.manual_seed(0)
        train(run)
    assert weights(quiet) == weights(watched)
    assert quiet.metrics == watched.metrics
    assert quiet.evaluations == []
    assert [point["step"] for point in watched.evaluations] == [1, 3, 4]


def test_looks_that_take_too_long_are_left_out(few_pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look is taken, later ones only as long as there is time for them; auto_stop needs them all."""
    monkeypatch.setattr("dpo_hub.training.watch.SHORT", 0.0)
    monkeypatch.setattr("dpo_hub.training.watch.SHARE_OF_TIME", 0.0)
    hurried, watchful = make_run(few_pairs, evaluations=3), make_run(few_pairs, evaluations=3, auto_stop=True)
    for run in (hurried, watchful):
        train(run)
    assert [point["step"] for point in hurried.evaluations] == [1]
    assert [point["step"] for point in watchful.evaluations] == [1, 3, 4]


def test_a_point_says_what_was_measured_and_what_was_written(few_pairs: Path) -> None:
    """Held-out figures, distance, lengths and the replies themselves; the last point is the evaluation at the end."""
    run = make_run(few_pairs, evaluations=2)
    trained = train(run)
    first, last = run.evaluations
    assert {name: last[name] for name in trained.evaluation} == pytest.approx(trained.evaluation)
    assert [said["prompt"] for said in last["replies"]] == [text_of(pair.prompt) for pair in run.pairs("held_out")]
    assert len(last["replies"]) == PROMPTS == len(last["reply_tokens"])
    assert first["reference_tokens"] == last["reference_tokens"]
    assert 0 < abs(last["kl"]) < 1


def test_randomness_and_mode_are_put_back() -> None:
    """Whatever is drawn in between, what follows is as if it had not been."""

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    model = torch.nn.Linear(1, 1)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    with preserving_model_state(model):
        model.eval()
        draw()
        torch.manual_seed(5)
    after = draw()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    assert after == draw()
    assert model.training


@pytest.fixture
def policy() -> PeftModel:
    """The demo's model with an adapter that changes it."""
    torch.manual_seed(1)
    made = get_peft_model(AutoModelForCausalLM.from_pretrained(EMBEDDED), LoraConfig(target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
    return made


@pytest.mark.parametrize("engine", [SHARED_PREFIX, pytest.param(TRL, marks=pytest.mark.full)])
def test_the_distance_is_that_of_plain_logits(few_pairs: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """KL a token is the mean log-ratio of the tokens that were sampled, computed here row by row from full logits."""
    found: list[tuple[float, float]] = []

    class Checked(Probe):
        def measure(self) -> dict[str, Any]:
            measured = super().measure()
            ratios = []
            for pair, reply in zip(self.pairs, self._answer()[0], strict=True):
                row, start = torch.tensor([list(pair["prompt_ids"]) + reply]), len(pair["prompt_ids"])
                with torch.no_grad():
                    ours = log_softmax(self.policy(input_ids=row).logits[0].double(), -1)
                    with self.policy.disable_adapter():
                        theirs = log_softmax(self.policy(input_ids=row).logits[0].double(), -1)
                for at in range(start, row.shape[1]):
                    ratios.append((ours - theirs)[at - 1, row[0, at]].item())
            found.append((measured["kl"], sum(ratios) / len(ratios)))
            return measured

    monkeypatch.setattr("dpo_hub.training.train.Probe", Checked)
    train(make_run(few_pairs, engine=engine, evaluations=2))
    assert [kl for kl, _ in found] == pytest.approx([plain for _, plain in found], abs=1e-4)


def test_prompts_leave_room_for_replies() -> None:
    """The first short ones are asked, and the shortest where all are long."""
    pairs = [{"prompt_ids": [0] * length} for length in (60, 10, 20, 50, *[5] * PROMPTS)]
    assert [len(pair["prompt_ids"]) for pair in select_pairs(pairs, 64)] == [10, 20, *[5] * (PROMPTS - 2)]
    assert [len(pair["prompt_ids"]) for pair in select_pairs(pairs[:1] + pairs[3:4], 64)] == [50]


def test_repeats_are_counted() -> None:
    """The share of n-grams that came before, none in a reply too short to have two."""
    assert repeated(range(20)) == 0
    assert repeated([1, 2, 3, 4] * 5) == pytest.approx(13 / 17)
    assert repeated([1] * (NGRAM - 1)) == 0


def test_the_best_point_is_kept(policy: PeftModel, tmp_path: Path) -> None:
    """The lowest held-out loss counts, the earlier of two alike; a loss that is no number never does."""
    folder = tmp_path / "best"
    assert restore_best(folder, policy) is None
    weight = next(parameter for name, parameter in policy.named_parameters() if "lora_B" in name)
    for step, loss in enumerate([math.nan, 0.9, 0.5, 0.5, 0.7, math.nan]):
        with torch.no_grad():
            weight.fill_(step)
        keep_best(folder, policy, {"step": step, "loss": loss})
    best = restore_best(folder, policy)
    assert best == best_of(folder)
    assert best
    assert (best.step, best.loss) == (2, 0.5)
    assert (weight == 2).all()
    assert sorted(path.name for path in folder.iterdir()) == ["adapter-2.safetensors", "point.json"]


OVER_OPTIMISED: dict[str, Any] = {"beta": 0.1, "sft_weight": 0.0, "learning_rate": 2e-2, "batch_size": 4}


def test_auto_stop_ends_a_run_that_goes_wrong(few_pairs: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It ends at a point, the adapter is that of an earlier point, and log and report say so."""
    run = make_run(few_pairs, **OVER_OPTIMISED, epochs=8, evaluations=16, auto_stop=True)
    with caplog.at_level("INFO", "dpo_hub"):
        trained = train(run)
    told = run.report["auto_stop"]
    assert told["kept"] < told["ended"] < told["steps"] == 64
    assert len(run.metrics) == told["ended"] == run.evaluations[-1]["step"]
    kept = next(point for point in run.evaluations if point["step"] == told["kept"])
    assert trained.evaluation["chosen_logp"] == pytest.approx(kept["chosen_logp"], abs=1e-3)
    assert trained.evaluation["chosen_logp"] > run.evaluations[-1]["chosen_logp"]
    said = [record.getMessage() for record in caplog.records]
    assert any(f"the adapter is that of step {told['kept']}" in line for line in said)
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == len({line.split(": ", 1)[1][:20] for line in warned}) > 0


def test_without_auto_stop_a_run_that_goes_wrong_is_told_only(
    few_pairs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on to its end with a warning, and nothing is kept aside."""
    run = make_run(few_pairs, **OVER_OPTIMISED, epochs=3, evaluations=3)
    train(run)
    assert len(run.metrics) == 24
    assert any("Chosen replies become unlikely" in record.getMessage() for record in caplog.records)
    assert not (run.path / "best").exists()
    assert "auto_stop" not in run.report


def test_a_good_end_is_kept_as_it_is(few_pairs: Path) -> None:
    """Where the last point is the best, the adapter is the one that plain training gives."""
    plain, stopping = (make_run(few_pairs, epochs=1, evaluations=2, auto_stop=asked) for asked in (False, True))
    for run in (plain, stopping):
        train(run)
    assert best_of(stopping.path / "best") is not None
    assert weights(plain) == weights(stopping)
    assert "auto_stop" not in stopping.report


def break_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Have the loss of the first batch of *step* be no number."""
    usual: Callable[..., torch.Tensor] = training.DPOTrainer._compute_loss

    def loss(self: Any, model: Any, inputs: Any, return_outputs: bool) -> torch.Tensor:
        found = usual(self, model, inputs, return_outputs)
        return found * math.nan if model.training and self.state.global_step == step - 1 else found

    monkeypatch.setattr(training.DPOTrainer, "_compute_loss", loss)


def test_a_loss_that_is_no_number_ends_training(few_pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be recovered, and the error says what to do; the step is logged all the same, as valid JSON."""
    break_at(monkeypatch, 3)
    run = make_run(few_pairs, epochs=4)
    with pytest.raises(ModelError, match=r"At step 3 training broke down: loss nan.*Lower --learning-rate.*0\.0004\."):
        train(run)
    assert len(run.metrics) == 3
    assert math.isnan(run.metrics[-1]["loss"])
    assert json.loads((run.path / "metrics.jsonl").read_text().splitlines()[-1])["loss"] is None
    assert not run.adapter.exists()


def test_auto_stop_falls_back_when_training_breaks_down(few_pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a point to fall back on, the run ends well with that."""
    break_at(monkeypatch, 6)
    run = make_run(few_pairs, epochs=4, evaluations=4, auto_stop=True)
    trained = train(run)
    assert len(run.metrics) == 6
    assert run.report["auto_stop"]["kept"] < 6 == run.report["auto_stop"]["ended"]
    assert "broke down" in run.report["auto_stop"]["why"]
    assert math.isfinite(trained.evaluation["loss"])


def test_a_resumed_run_is_watched_as_if_it_had_not_stopped(few_pairs: Path, policy: PeftModel) -> None:
    """Steps and points come back from the run's folder; what was said is not said again."""
    run = make_run(few_pairs, epochs=10, evaluations=2, auto_stop=True)
    log = dict.fromkeys([*TRL_KEYS.values(), *STEP_KEYS.values()], 0.5)
    probe = Probe(policy, AutoTokenizer.from_pretrained(EMBEDDED), [], max_length=64)
    point = {"pairs": 8, "loss": 0.5, "reward_accuracy": 1.0, "chosen_reward": 0.0, "chosen_logp": -3.0, "kl": 3.0}
    for step in range(1, 13):
        run.append_metrics(dict.fromkeys([*TRL_KEYS, *STEP_KEYS], 0.5) | {"step": step, "epoch": 1.0})
    for step in (10, 20):
        run.append_evaluation(point | {"step": step})
    keep_best(run.path / "best", policy, {"step": 10, "loss": 0.5})
    watch, control = Watch(run, run.recipe, probe, lambda _most: {}), TrainerControl()
    watch.on_train_begin(None, TrainerState(global_step=11, max_steps=20), control)
    assert [step["step"] for step in watch.steps] == list(range(1, 12))
    assert [point["step"] for point in watch.evaluations] == [10]
    assert watch.known == {"far-from-reference"}
    assert control.should_training_stop
    watch.on_log(None, TrainerState(global_step=12, max_steps=20, epoch=1.2), control, logs=log)
    assert len(watch.steps) == 12
    watch.restore_best_point(12)
    assert run.report["auto_stop"]["kept"] == 10
