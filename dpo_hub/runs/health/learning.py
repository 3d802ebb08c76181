"""Checks whether training learns at all: values that are not finite, a loss that explodes, a policy that stays put."""

from __future__ import annotations

from math import isfinite

from ...recipe import Recipe
from .chance import clearly_above_half, mean_and_error
from .history import WINDOW_STEPS, Finding, History

EXPLODED = 2.0
"""Median loss of recent steps, relative to the untrained model's. Working training lowers the loss, batches differ by
less, two outliers do not move the median, and every loss of the family starts at a fixed, positive value."""
SETTLED = 0.25
"""Share of a run after which learning must be visible: warm-up takes the first tenth, and by this point the learning
rate has done a good third of its total work."""
SAME = 0.02
"""Difference between policy and reference, in nats for a whole reply, that counts as none: such a run would end at
three times as much, and a reply would then be less than a tenth more or less likely than before."""
HALFWAY = 0.5
"""Share of a run after which a margin indistinguishable from zero will no longer appear."""
MARGIN_ERRORS = 1.0
"""A margin counts as absent if it is less than this many standard errors above zero. Without learning, five of six runs
are below; with weak learning that would become significant by the end (about three errors above zero), few are."""
FEW_STEPS = 10
"""Minimum number of steps after `SETTLED` to estimate their spread."""


def diverging(course: History) -> Finding | None:
    """A value that is not finite, or a loss far above its start: the steps are too large for the model."""
    last = course.steps[-1]
    lower = f"Lower --learning-rate, for example to {course.recipe.learning_rate / 10:g}."
    if not all(map(isfinite, (last["loss"], last.get("grad_norm", 0.0), course.latest.get("loss", 0.0)))):
        message = f"At step {course.step} loss or gradient are no numbers any more: the weights are lost."
        return course.finding("diverging", "high", message, lower, ends=True)
    start, now = course.steps[0]["loss"], course.median("loss")
    if not course.has_enough_steps or not now > EXPLODED * start:
        return None
    message = (
        f"Training diverges: the loss began at {start:.3g} and is {now:.3g} now (median of the last "
        f"{len(course.recent)} steps), gradient norm {course.median('grad_norm'):.3g}."
    )
    return course.finding("diverging", "high", message, lower, ends=True)


def not_learning(course: History) -> Finding | None:
    """No learning rate, a policy that is still the reference, or a margin that chance explains."""
    recipe = course.recipe
    if recipe.learning_rate == 0:
        message = "The learning rate is 0: nothing is learned, and every loss stays where it began."
        return course.finding("no-learning", "high", message, "Give a --learning-rate above 0.")
    return _still_reference(course) or _no_margin(course)


def _still_reference(course: History) -> Finding | None:
    if course.step < SETTLED * course.total or len(course.steps) < 2 * WINDOW_STEPS:
        return None
    figures = ("chosen_reward", "rejected_reward", "margin")
    furthest = max(abs(course.nats(course.mean(name))) for name in figures)
    if furthest >= SAME:
        return None
    message = (
        f"After {course.step} of {course.total} steps the policy is still the base model: its replies' "
        f"log-probabilities differ by {furthest:.2g} nats, and the loss is {course.mean('loss'):.3g}."
    )
    enough = max(course.recipe.learning_rate * 10, Recipe.for_model(course.recipe.model).learning_rate)
    advice = f"Raise --learning-rate, for example to {enough:g}."
    return course.finding("no-learning", "high", message, advice)


def _no_margin(course: History) -> Finding | None:
    later = course.steps[round(SETTLED * course.total) :]
    if course.step < HALFWAY * course.total or len(later) < FEW_STEPS:
        return None
    margin, error = mean_and_error([step["margin"] for step in later])
    held_out, pairs = course.latest.get("reward_accuracy", 0.0), course.latest.get("pairs", 0)
    if not margin < MARGIN_ERRORS * error or (pairs and clearly_above_half(held_out, pairs)):
        return None
    message = (
        f"After {course.step} of {course.total} steps nothing is preferred yet: the margin on training pairs is "
        f"{margin:.2g} ± {error:.2g}, which chance explains."
    )
    advice = "See with dpo-hub check whether the pairs contradict each other; if not, raise --learning-rate threefold."
    return course.finding("no-learning", "medium", message, advice)


def noisy_accuracy(course: History) -> Finding | None:
    """One pair per update: its reward accuracy is 0 or 1. Small updates as such do no harm (docs/decisions.md)."""
    if course.effective_batch_size > 1:
        return None
    message = "An update sees one pair, so a step's reward accuracy is 0% or 100%: its curve is noise."
    return course.finding("noisy-accuracy", "medium", message, "Raise --accumulation to 2.")
