"""How a run went so far, as the checks see it, and what they say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, nan
from statistics import fmean, median
from typing import Any, Literal

from ...recipe import Recipe

Severity = Literal["high", "medium", "low"]
"""high: the run is lost as it is; medium: its result will be worse than it could be; low: good to know."""

WINDOW_PAIRS = 64
"""Pairs that the recent steps have together, as many as a point of held-out pairs has."""
WINDOW_STEPS = 5
"""The fewest steps to call recent: one wild batch must not speak for all of them."""


@dataclass(frozen=True)
class Finding:
    """One thing that goes wrong, the steps it shows in, and the one change to try first.

    `ends_training` says that going on makes it worse and an earlier point is better.
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
        """What to do, as the doctor's findings have it."""
        return self.advice


@dataclass(frozen=True)
class Course:
    """The steps and held-out points so far of a run of *total* steps; there is at least one step."""

    steps: Sequence[Mapping[str, float]]
    evaluations: Sequence[Mapping[str, Any]]
    recipe: Recipe
    total: int

    @property
    def update_pairs(self) -> int:
        """Pairs whose gradients make up an update, of all processes together."""
        return self.recipe.update_pairs

    @property
    def recent(self) -> Sequence[Mapping[str, float]]:
        """The last steps, as many as have a word to say together."""
        return self.steps[-max(WINDOW_STEPS, ceil(WINDOW_PAIRS / self.update_pairs)) :]

    @property
    def telling(self) -> bool:
        """Whether there are enough recent steps to speak of."""
        return len(self.recent) >= WINDOW_STEPS

    @property
    def step(self) -> int:
        return int(self.steps[-1]["step"])

    @property
    def latest(self) -> Mapping[str, Any]:
        """The last held-out point, or nothing."""
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
        """How far chosen replies fell below the reference: in nats a reply, and as a share of its log-likelihood."""
        nats = -self.nats(figures.get("chosen_reward", nan))
        reference = -(figures.get("chosen_logp", nan) + nats)
        return nats, nats / reference if reference > 0 else nan

    def finding(self, kind: str, severity: Severity, message: str, advice: str, *, ends: bool = False) -> Finding:
        """Say something of the recent steps."""
        return Finding(kind, severity, message, advice, int(self.recent[0]["step"]), self.step, ends)
