"""Reads what a run logged, and explains in plain words what goes wrong and what to change.

Pure functions of figures, which `diagnose` reads from a run. Does not import torch, and is independent of how training
works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...recipe import Recipe
from ..run import Run
from .drift import displaced, far_from_reference, labels_disagree, length_exploited, over_optimised
from .history import Finding, History, Severity
from .learning import diverging, noisy_accuracy, not_learning

__all__ = ["Finding", "Severity", "diagnose", "examine"]

_ORDER: tuple[Severity, ...] = ("high", "medium", "low")


def examine(
    steps: Sequence[Mapping[str, float]], evaluations: Sequence[Mapping[str, Any]], recipe: Recipe, total: int
) -> list[Finding]:
    """List the problems so far in a run of *total* steps, most serious first.

    *steps* are lines of `metrics.jsonl`, and *evaluations* are lines of `evaluations.jsonl`; those after the last step
    are ignored. Meant to be called after each step; findings may disappear again.
    """
    if not steps:
        return []
    done = [point for point in evaluations if point["step"] <= steps[-1]["step"]]
    found = _findings(History(steps, done, recipe, total))
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


def _findings(course: History) -> list[Finding]:
    """Run the checks. Consequences of a more serious problem are not reported with it."""
    noisy = _if_found(noisy_accuracy(course))
    if cause := diverging(course) or labels_disagree(course):
        return [cause, *noisy]
    lost = [*_if_found(displaced(course)), *_if_found(over_optimised(course)), *_if_found(far_from_reference(course))]
    return [*lost, *([] if lost else [*_if_found(not_learning(course)), *_if_found(length_exploited(course))]), *noisy]


def _if_found(finding: Finding | None) -> list[Finding]:
    return [finding] if finding else []


def diagnose(run: Run) -> list[Finding]:
    """List what goes or went wrong in *run*, based on its logged figures."""
    steps = run.metrics
    return examine(steps, run.evaluations, run.recipe, run.state.steps or len(steps))
