"""Whether training learns at all: numbers that are none, a loss that explodes, a policy that stays where it was."""

from __future__ import annotations

from math import isfinite

from ...recipe import Recipe
from .chance import clearly_above_half, mean_and_error
from .course import WINDOW_STEPS, Course, Finding

EXPLODED = 2.0
"""Times the loss of the untrained model, as the median of recent steps. Training lowers it where it works, batches
differ by less, two wild ones do not move the median, and every loss of the family begins at a fixed, positive value."""
SETTLED = 0.25
"""Share of a run after which one that learns shows it: warm-up takes the first tenth, and by then the learning rate has
done a good third of all it will do."""
SAME = 0.02
"""Nats between policy and reference, for a whole reply, that count as none: such a run would end at three times as
much, and then a reply is not a tenth likelier or unlikelier than it was."""
HALFWAY = 0.5
"""Share of a run after which a margin that cannot be told from zero will not come any more."""
TOLD = 1.0
"""Standard errors above zero below which a margin is not there. One without a cause is below in five of six runs, and a
weak one that would be significant at last, some three errors above zero, in few."""
FEW_STEPS = 10
"""Steps after that share whose spread is worth estimating."""


def diverging(course: Course) -> Finding | None:
    """Not a number, or a loss far above where it began: the steps are too large for the model."""
    last = course.steps[-1]
    lower = f"Lower --learning-rate, for example to {course.recipe.learning_rate / 10:g}."
    if not all(map(isfinite, (last["loss"], last.get("grad_norm", 0.0), course.latest.get("loss", 0.0)))):
        message = f"At step {course.step} loss or gradient are no numbers any more: the weights are lost."
        return course.finding("diverging", "high", message, lower, ends=True)
    start, now = course.steps[0]["loss"], course.median("loss")
    if not course.telling or not now > EXPLODED * start:
        return None
    message = (
        f"Training diverges: the loss began at {start:.3g} and is {now:.3g} now (median of the last "
        f"{len(course.recent)} steps), gradient norm {course.median('grad_norm'):.3g}."
    )
    return course.finding("diverging", "high", message, lower, ends=True)


def not_learning(course: Course) -> Finding | None:
    """No learning rate, a policy that is still the reference, or a margin that chance explains."""
    recipe = course.recipe
    if recipe.learning_rate == 0:
        message = "The learning rate is 0: nothing is learned, and every loss stays where it began."
        return course.finding("no-learning", "high", message, "Give a --learning-rate above 0.")
    return _still_reference(course) or _no_margin(course)


def _still_reference(course: Course) -> Finding | None:
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


def _no_margin(course: Course) -> Finding | None:
    later = course.steps[round(SETTLED * course.total) :]
    if course.step < HALFWAY * course.total or len(later) < FEW_STEPS:
        return None
    margin, error = mean_and_error([step["margin"] for step in later])
    held_out, pairs = course.latest.get("reward_accuracy", 0.0), course.latest.get("pairs", 0)
    if not margin < TOLD * error or (pairs and clearly_above_half(held_out, pairs)):
        return None
    message = (
        f"After {course.step} of {course.total} steps nothing is preferred yet: the margin on training pairs is "
        f"{margin:.2g} ± {error:.2g}, which chance explains."
    )
    advice = "See with dpo-hub check whether the pairs contradict each other; if not, raise --learning-rate threefold."
    return course.finding("no-learning", "medium", message, advice)


def noisy_accuracy(course: Course) -> Finding | None:
    """A single pair an update: its reward accuracy is 0 or 1. Small updates as such do no harm (docs/decisions.md)."""
    if course.update_pairs > 1:
        return None
    message = "An update sees one pair, so a step's reward accuracy is 0% or 100%: its curve is noise."
    return course.finding("noisy-accuracy", "medium", message, "Raise --accumulation to 2.")
