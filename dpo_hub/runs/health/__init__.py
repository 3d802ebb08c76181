"""Reads what a run logged and says in plain words what goes wrong and what to change.

Pure functions of figures, which `diagnose` takes from a run; nothing here loads torch. Knows nothing of how training
works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...recipe import Recipe
from ..run import Run
from .course import Course, Finding, Severity
from .drift import displaced, far_from_reference, labels_disagree, length_exploited, over_optimised
from .learning import diverging, noisy_accuracy, not_learning

__all__ = ["Finding", "Severity", "diagnose", "examine"]

_ORDER: tuple[Severity, ...] = ("high", "medium", "low")


def examine(
    steps: Sequence[Mapping[str, float]], evaluations: Sequence[Mapping[str, Any]], recipe: Recipe, total: int
) -> list[Finding]:
    """Say what goes wrong in a run of *total* steps so far, the gravest first.

    *steps* are lines of `metrics.jsonl` and *evaluations* of `evaluations.jsonl`; of these, later points than the last
    step are left aside. Meant to be asked after each step; findings may go as they came.
    """
    if not steps:
        return []
    done = [point for point in evaluations if point["step"] <= steps[-1]["step"]]
    found = _findings(Course(steps, done, recipe, total))
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


def _findings(course: Course) -> list[Finding]:
    """What the checks say. What follows from something graver is not said beside it."""
    noisy = _if_found(noisy_accuracy(course))
    if cause := diverging(course) or labels_disagree(course):
        return [cause, *noisy]
    lost = [*_if_found(displaced(course)), *_if_found(over_optimised(course)), *_if_found(far_from_reference(course))]
    return [*lost, *([] if lost else [*_if_found(not_learning(course)), *_if_found(length_exploited(course))]), *noisy]


def _if_found(finding: Finding | None) -> list[Finding]:
    return [finding] if finding else []


def diagnose(run: Run) -> list[Finding]:
    """Say what goes wrong in *run*, or went wrong in it, from what it logged."""
    steps = run.metrics
    return examine(steps, run.evaluations, run.recipe, run.state.steps or len(steps))
