"""Compares runs by reward accuracy against KL, and recommends one. Works on figures only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

from ..runs.health import diagnose
from ..runs.intervals import wilson
from ..runs.run import Run


@dataclass(frozen=True)
class Point:
    """A finished run. `kl` is KL(π‖π_ref) in nats per token, `margin` in nats, `wrong` a severe finding or empty."""

    run: str
    loss: str
    beta: float
    kl: float
    accuracy: float
    pairs: int
    margin: float
    wrong: str = ""

    @property
    def error(self) -> float:
        """The accuracy's standard error; one extra pair on either side keeps it above 0 at accuracies 0 and 1."""
        smoothed = (self.accuracy * self.pairs + 1) / (self.pairs + 2)
        return sqrt(smoothed * (1 - smoothed) / self.pairs)

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.accuracy, self.pairs)


def point_of(run: Run) -> Point:
    """Read the figures of *run*.

    Raises:
        RunError: it has not finished.
    """
    measured, recipe = run.require_finished().evaluation, run.recipe
    last = run.evaluations[-1] if run.evaluations else {}
    kl = measured.get("kl", last.get("kl", float("nan")))
    wrong = next((finding.message for finding in diagnose(run) if finding.severity == "high"), "")
    accuracy, pairs, margin = measured["reward_accuracy"], int(measured["pairs"]), measured["margin"] / recipe.beta
    return Point(run.id, recipe.loss, recipe.beta, kl, accuracy, pairs, margin, wrong)


def frontier(points: Sequence[Point]) -> list[Point]:
    """The Pareto-optimal points: no other has at least the accuracy at no more KL, and is better in one of them."""
    known = [point for point in points if isfinite(point.kl)]
    return [point for point in known if not any(_dominates(other, point) for other in known)]


def _dominates(one: Point, other: Point) -> bool:
    as_good = one.kl <= other.kl and one.accuracy >= other.accuracy
    return as_good and (one.kl, one.accuracy) != (other.kl, other.accuracy)


def recommended(points: Sequence[Point]) -> Point | None:
    """Of the healthy runs within one standard error of the best accuracy, the one with the least KL.

    The one-standard-error rule of Breiman et al. 1984, section 3.4.3. A healthy run's 95 % interval is above chance;
    None if there is no such run.
    """
    healthy = _healthy(points)
    if not healthy:
        return None
    best = _best(healthy)
    near = [point for point in healthy if point.accuracy >= best.accuracy - best.error]
    return min(near, key=lambda point: (point.kl, -point.accuracy))


def _healthy(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if isfinite(point.kl) and not point.wrong and point.interval[0] > 0.5]


def _best(points: Sequence[Point]) -> Point:
    return max(points, key=lambda point: point.accuracy)


def advice(points: Sequence[Point]) -> list[str]:
    """Return sentences that recommend a run, and say how clear the choice is."""
    chosen = recommended(points)
    if chosen is None:
        return [
            "None of these runs went well and is surely better than chance on its held-out pairs: there is none to "
            "recommend."
        ]
    healthy = _healthy(points)
    best, which = _best(healthy), "runs" if len(healthy) == len(points) else "healthy runs"
    told = [
        f"Take {chosen.run} ({chosen.loss}, β {chosen.beta:g}): of the {which} within one standard error of their best "
        f"reward accuracy, {best.accuracy:.1%}, it went the least far from its reference."
    ]
    if len(healthy) > 1 and all(point.accuracy >= best.accuracy - best.error for point in healthy):
        told.append(
            f"In accuracy they are the same but for chance: {best.pairs} held-out pairs do not tell them apart."
        )
    return told
