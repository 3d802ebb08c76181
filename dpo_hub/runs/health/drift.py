"""Checks whether training goes too far or in the wrong direction, on held-out pairs and the policy's own replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from statistics import fmean
from typing import Any

from ...recipe import Recipe
from .chance import RARE, clearly_above_half, clearly_below_half, fall_in_errors, mean_and_error
from .history import Finding, History, Severity

FALLEN = 0.5
"""Share of their log-likelihood by which chosen replies may fall: each token is then 1.5 times as surprising. A drop of
0.1 or 0.2 is usual without a likelihood term, as chosen and rejected replies have much in common."""
COLLAPSED = 1.0
"""Share above which the likelihood has collapsed: each token is twice as surprising, its perplexity squared."""
FALLEN_NATS = 3.0
"""Minimum fall in nats for a whole reply, to a twentieth of its likelihood; for short replies, shares mean little."""
SATURATED = 0.95
"""Reward accuracy on training pairs above which there is nothing left to learn, whatever the loss and its scale."""
FALL_ERRORS = 3.0
"""Standard errors by which held-out accuracy must fall from its best: the best of a few points is too high by one or
two by chance."""
WORSE_ERRORS = 3.0
"""Standard errors by which the held-out loss must exceed the untrained model's. Across pairs, the standard deviation of
the loss is about its mean, so the standard error is the mean divided by the square root of the number of pairs."""
REPEATS = 0.2
"""Share of repeated n-grams in a reply, in excess of the reference's share. Prose has a few per cent."""
FAR = 1.0
"""KL divergence between policy and reference in nats per token. The entropy of a language model is about one or two
nats per token, and useful preference training moves about a tenth of that: a whole nat is a different language."""
LONGER = 1.3
"""Reply length, relative to the longer of chosen and reference replies, above which it is worth mentioning."""
LONGER_ERRORS = 4.0
"""Standard errors over prompts by which replies must be longer than both: p = 0.003 for each with eight prompts."""


def labels_disagree(course: History) -> Finding | None:
    """Training pairs and held-out pairs point in opposite directions, which chance does not explain.

    A file that is entirely swapped cannot be detected here: training goes just as smoothly, held-out pairs agree, and
    only reading the replies reveals it.
    """
    share, count = course.latest.get("reward_accuracy", 0.5), int(course.latest.get("pairs", 0))
    trained, seen = course.mean("reward_accuracy"), len(course.recent) * course.effective_batch_size
    wrong = clearly_below_half(share, count) and course.latest["margin"] < 0
    if not (wrong and clearly_above_half(trained, seen)):
        return None
    message = (
        f"Training pairs and held-out pairs contradict each other: {trained:.0%} of the last {seen} trained on come "
        f"out as labelled, but only {share:.0%} of {count} held out, which chance does less than once in "
        f"{1 / RARE:,.0f} times."
    )
    advice = "Look for a part of the file in which chosen and rejected are the wrong way round: dpo-hub check FILE."
    return course.finding("labels-disagree", "high", message, advice, ends=True)


def displaced(course: History) -> Finding | None:
    """The likelihood of chosen replies collapses along with that of rejected ones (likelihood displacement)."""
    recent = {name: course.mean(name) for name in ("chosen_reward", "chosen_logp")}
    falls = [course.fall(figures) for figures in (recent, course.latest) if figures]
    nats, share = min(nats for nats, _ in falls), min(share for _, share in falls)
    if not (course.has_enough_steps and course.mean("margin") > 0 and nats > FALLEN_NATS and share > FALLEN):
        return None
    logp, collapsed = recent["chosen_logp"], share > COLLAPSED
    message = (
        f"Chosen replies become unlikely, too: their log-probability fell from "
        f"{logp - course.nats(recent['chosen_reward']):.1f} to {logp:.1f} a reply, although the margin grows."
    )
    severity: Severity = "high" if collapsed else "medium"
    return course.finding(
        "likelihood-displacement", severity, message, _regularization_advice(course.recipe), ends=collapsed
    )


def _regularization_advice(recipe: Recipe) -> str:
    usual = Recipe.for_model(recipe.model).sft_weight
    if recipe.sft_weight < usual:
        return f"Give --sft-weight {usual:g}, which keeps chosen replies likely."
    return f"Raise --beta, for example to {recipe.beta * 3:g}."


def over_optimised(course: History) -> Finding | None:
    """Training pairs are nearly all ordered correctly, and further training harms everything else."""
    if course.mean("reward_accuracy") < SATURATED or not course.latest or not course.has_enough_steps:
        return None
    signs: tuple[Callable[[History], str], ...] = (_accuracy_falls, _worse_than_untrained, _stutters)
    seen = [told for sign in signs if (told := sign(course))]
    if not seen:
        return None
    message = (
        f"Over-optimised: training pairs are ordered right already ({course.mean('reward_accuracy'):.0%}, margin "
        f"{course.mean('margin'):.2g}), and {', and '.join(seen)}."
    )
    fewer = course.recipe.epochs > 1 and not _stutters(course)
    advice = "Train for fewer --epochs, or use --auto-stop." if fewer else _regularization_advice(course.recipe)
    return course.finding("over-optimised", "high", message, advice, ends=True)


def _accuracy_falls(course: History) -> str:
    now, count = course.latest["reward_accuracy"], course.latest["pairs"]
    best = max(course.evaluations, key=lambda point: point["reward_accuracy"])
    if not fall_in_errors(best["reward_accuracy"], now, count) > FALL_ERRORS:
        return ""
    return f"held-out accuracy fell from {best['reward_accuracy']:.0%} at step {best['step']} to {now:.0%}"


def _worse_than_untrained(course: History) -> str:
    start, now = course.steps[0]["loss"], course.latest["loss"]
    if not now - start > WORSE_ERRORS * now / sqrt(course.latest["pairs"]):
        return ""
    return f"the held-out loss, {now:.3g}, is above the untrained model's, {start:.3g}"


def _stutters(course: History) -> str:
    repeated, reference = (course.latest.get(name, 0.0) for name in ("repeated", "reference_repeated"))
    if not repeated - reference > REPEATS:
        return ""
    return f"sampled replies stutter: {repeated:.0%} of what they say repeats itself ({reference:.0%} before)"


def far_from_reference(course: History) -> Finding | None:
    """The policy writes text that the reference never would."""
    kl = course.latest.get("kl", 0.0)
    if not kl > FAR:
        return None
    message = f"The policy has gone far: each token it writes is {kl:.2g} nats likelier than where it began."
    return course.finding("far-from-reference", "high", message, _stay_close(course.recipe), ends=True)


def _stay_close(recipe: Recipe) -> str:
    usual = Recipe.for_model(recipe.model)
    if recipe.learning_rate > usual.learning_rate:
        return f"Lower --learning-rate, for example to {max(usual.learning_rate, recipe.learning_rate / 10):g}."
    return f"Raise --beta, for example to {max(usual.beta, recipe.beta * 3):g}."


def length_exploited(course: History) -> Finding | None:
    """Replies become longer than those of the reference and than the chosen ones: length is mistaken for quality."""
    lengths = _lengths(course.latest)
    if not lengths:
        return None
    now, before, wanted = (fmean(lengths[whose]) for whose in ("reply", "reference", "chosen"))
    longer = all(_clearly_longer(lengths["reply"], lengths[whose]) for whose in ("reference", "chosen"))
    if not longer or now < LONGER * max(before, wanted):
        return None
    message = (
        f"Replies grow beyond what was asked for: {now:.0f} tokens on average, with {before:.0f} from the base model "
        f"and {wanted:.0f} in the chosen replies to the same prompts."
    )
    advice = "Give --loss sigmoid_norm, which takes rewards by the token, so that length earns nothing."
    return course.finding("length-exploitation", "medium", message, advice)


def _lengths(point: Mapping[str, Any]) -> dict[str, list[int]]:
    found = {whose: point.get(f"{whose}_tokens", []) for whose in ("reply", "reference", "chosen")}
    return found if len(found["reply"]) > 1 else {}


def _clearly_longer(one: list[int], other: list[int]) -> bool:
    excess, error = mean_and_error([a - b for a, b in zip(one, other, strict=True)])
    return excess > LONGER_ERRORS * error
