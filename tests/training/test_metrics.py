from __future__ import annotations

import math

import pytest

from dpo_hub.training.metrics import STEP_KEYS, TRL_KEYS, evaluation, step_metrics

LOG = {key: float(number) for number, key in enumerate([*TRL_KEYS.values(), *STEP_KEYS.values()])}


def test_a_step_is_translated() -> None:
    """TRL's keys become the project's words."""
    metrics = step_metrics(3, 0.5, LOG)
    assert metrics is not None
    assert (metrics.step, metrics.epoch, metrics.loss, metrics.margin) == (3, 0.5, 0.0, 1.0)
    assert (metrics.grad_norm, metrics.learning_rate) == (7.0, 8.0)
    assert not metrics.broken


@pytest.mark.parametrize("broken", [{"loss": math.nan}, {"grad_norm": math.inf}])
def test_a_step_that_ruins_the_weights_is_known(broken: dict[str, float]) -> None:
    """A loss or a gradient that is no number leaves none behind."""
    metrics = step_metrics(3, 0.5, LOG | broken)
    assert metrics is not None
    assert metrics.broken


def test_the_summary_at_the_end_is_no_step() -> None:
    """A log without rewards is left alone."""
    assert step_metrics(3, 1.0, {"train_runtime": 1.0}) is None


def test_an_evaluation_is_translated() -> None:
    """Held-out figures have the same names, and the number of pairs."""
    measured = evaluation({f"eval_{key}": value for key, value in LOG.items()}, 7)
    assert measured["pairs"] == 7
    assert not measured.keys() & STEP_KEYS.keys()
    assert measured["reward_accuracy"] == LOG["rewards/accuracies"]
