"""Which runs are on the frontier, and which is recommended."""

from __future__ import annotations

from math import nan

from dpo_hub.comparison.frontier import Point, advice, frontier, recommended


def point(kl: float, accuracy: float, *, pairs: int = 100, wrong: str = "") -> Point:
    return Point(f"{kl}-{accuracy}", "sigmoid", 0.1, kl, accuracy, pairs, 1.0, wrong)


def test_what_nothing_beats_is_on_the_frontier() -> None:
    """Equal points stay both; a run whose KL is not known is on no frontier."""
    near, far, worse, unknown = point(0.1, 0.8), point(0.5, 0.9), point(0.5, 0.85), point(nan, 1.0)
    assert frontier([near, far, worse, unknown, near]) == [near, far, near]
    assert frontier([]) == []


def test_the_nearest_of_the_best_is_recommended() -> None:
    """Within a standard error of the best, less KL wins; beyond it, accuracy does."""
    assert recommended([point(0.1, 0.88), point(0.5, 0.9)]) == point(0.1, 0.88)
    assert recommended([point(0.1, 0.7), point(0.5, 0.9)]) == point(0.5, 0.9)


def test_what_went_wrong_or_is_chance_is_not_recommended() -> None:
    """Health rules a run out, and so does an accuracy that a coin explains."""
    assert recommended([point(0.1, 0.9, wrong="It diverges."), point(0.5, 0.9)]) == point(0.5, 0.9)
    assert recommended([point(0.1, 0.55), point(nan, 0.9)]) is None


def test_the_advice_counts_healthy_runs_only() -> None:
    """A run that went wrong is neither taken nor compared with; where none is left, that is said."""
    (told,) = advice([point(0.1, 0.95, wrong="It diverges."), point(0.5, 0.7)])
    assert told.startswith("Take 0.5-0.7 (sigmoid, β 0.1): of the healthy runs within one standard error")
    assert "70.0%" in told
    assert "the same but for chance" in advice([point(0.1, 0.88), point(0.5, 0.9)])[1]
    assert "none to recommend" in advice([point(0.1, 0.55)])[0]
