"""The one place where TRL's log keys become the project's names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

TRL_KEYS = {
    "loss": "loss",
    "margin": "rewards/margins",
    "reward_accuracy": "rewards/accuracies",
    "chosen_reward": "rewards/chosen",
    "rejected_reward": "rewards/rejected",
    "chosen_logp": "logps/chosen",
    "rejected_logp": "logps/rejected",
}


STEP_KEYS = {"grad_norm": "grad_norm", "learning_rate": "learning_rate"}
"""Figures that only a training step has; transformers logs them without a prefix."""


@dataclass(frozen=True)
class StepMetrics:
    """The metrics of one step, as means over its pairs.

    Rewards and margin are in units of β·nats, log-probabilities in nats summed over the reply's tokens. The gradient
    norm is before clipping. Figures may be NaN if training has broken down.
    """

    step: int
    epoch: float
    loss: float
    margin: float
    reward_accuracy: float
    chosen_reward: float
    rejected_reward: float
    chosen_logp: float
    rejected_logp: float
    grad_norm: float
    learning_rate: float

    @property
    def broken(self) -> bool:
        """Whether this step's update leaves weights that are not finite."""
        return not (math.isfinite(self.loss) and math.isfinite(self.grad_norm))


def step_metrics(step: int, epoch: float, log: Mapping[str, float]) -> StepMetrics | None:
    """Translate one of TRL's training logs; return None if it is not a step's (the summary at the end)."""
    if "rewards/margins" not in log:
        return None
    return StepMetrics(step, epoch, **{name: float(log[key]) for name, key in (TRL_KEYS | STEP_KEYS).items()})


def evaluation(log: Mapping[str, float], pairs: int) -> dict[str, float]:
    """Translate TRL's evaluation log of *pairs* held-out pairs."""
    names = [f.name for f in fields(StepMetrics) if f.name in TRL_KEYS]
    return {"pairs": pairs, **{name: float(log[f"eval_{TRL_KEYS[name]}"]) for name in names}}
