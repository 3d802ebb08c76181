"""The course of a run so far, as input for the checks, and their findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, nan
from statistics import fmean, median
from typing import Any, Literal

from ...recipe import Recipe

Severity = Literal["high", "medium", "low"]
"""high: the run is lost unless changed; medium: its result will be worse than it could be; low: good to know."""

WINDOW_PAIRS = 64
"""Minimum number of pairs in the recent steps together, the same as at a held-out evaluation."""
WINDOW_STEPS = 5
"""Minimum number of recent steps, so that one outlier batch does not dominate."""


@dataclass(frozen=True)
class Finding:
    """One problem, the steps that show it, and the one change to try first.

    `ends_training` means that continuing makes it worse and an earlier point is better.
    """

    kind: str
    severity: Severity
    message: str
    advice: str
    first_step: int
    last_step: int
    ends_training: bool = False

    @property
    def hint(self) -> str:
        """What to do, under the same name as in the doctor's findings."""
        return self.advice


@dataclass(frozen=True)
class History:
    """The steps and held-out evaluations so far of a run of *total* steps; there is at least one step."""

    steps: Sequence[Mapping[str, float]]
    evaluations: Sequence[Mapping[str, Any]]
    recipe: Recipe
    total: int

    @property
    def effective_batch_size(self) -> int:
        """Pairs per update, over all processes."""
        return self.recipe.effective_batch_size

    @property
    def recent(self) -> Sequence[Mapping[str, float]]:
        """The last steps, as many as are needed for a reliable statement."""
        return self.steps[-max(WINDOW_STEPS, ceil(WINDOW_PAIRS / self.effective_batch_size)) :]

    @property
    def has_enough_steps(self) -> bool:
        """Whether there are enough recent steps."""
        return len(self.recent) >= WINDOW_STEPS

    @property
    def step(self) -> int:
        return int(self.steps[-1]["step"])

    @property
    def latest(self) -> Mapping[str, Any]:
        """The last held-out evaluation, or an empty mapping."""
        return self.evaluations[-1] if self.evaluations else {}

    def mean(self, name: str) -> float:
        """The mean of a figure over the recent steps."""
        return fmean(step[name] for step in self.recent)

    def median(self, name: str) -> float:
        """The median of a figure over the recent steps."""
        return median(step[name] for step in self.recent)

    def nats(self, reward: float) -> float:
        """The log-ratio log π − log π_ref behind a *reward*."""
        return reward / self.recipe.beta

    def fall(self, figures: Mapping[str, float]) -> tuple[float, float]:
        """How far chosen replies fell below the reference: in nats per reply, and relative to its log-likelihood."""
        nats = -self.nats(figures.get("chosen_reward", nan))
        reference = -(figures.get("chosen_logp", nan) + nats)
        return nats, nats / reference if reference > 0 else nan

    def finding(self, kind: str, severity: Severity, message: str, advice: str, *, ends: bool = False) -> Finding:
        """Make a finding about the recent steps."""
        return Finding(kind, severity, message, advice, int(self.recent[0]["step"]), self.step, ends)
