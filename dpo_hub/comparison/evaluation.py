"""What held-out prompts say of a policy beside its reference: how far it went, how long and how varied it writes.

Knows nothing of the command line, nor of judges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import fmean

from ..preferences import PreferencePair
from ..preferences.pairs import Messages
from ..preferences.replies import Question
from ..preferences.split import prompt_digest
from ..preferences.table import Unreadable
from ..run import Run
from ..training.probe import repeated
from .duet import Duet, Written
from .intervals import Interval, bootstrap, of_mean, wilson
from .lens import Lens
from .record import lock_of, record

PROMPTS = 32
"""Prompts that are answered: few, as each training ends with it."""
PAIRS = 1_000
"""Pairs that are read for an interval; beyond them what pairs were drawn makes little difference."""
NEW_TOKENS = 128
"""Where a reply is cut off, before and after alike: some hundred words of English tell its manner."""


def measure(
    lens: Lens,
    duet: Duet,
    pairs: Sequence[PreferencePair],
    margins: Sequence[float] = (),
    *,
    most: int = PROMPTS,
) -> dict[str, float]:
    """Measure the policy on held-out *pairs*, and on its replies, sampled at temperature 1, to up to *most* prompts.

    The pairs' *margins* are read unless there is one for each.

    Returns, as far as each is a finite number; `_low` and `_high` bound a figure with 95 % confidence over prompts:
        `reward_accuracy_low`, `_high`, `margin_low`, `_high`: of up to `PAIRS` pairs; of more there are none.
        `prompts`: how many were answered.
        `kl`, `_low`, `_high`: KL(π‖π_ref) in nats a token, the mean of log π − log π_ref over the tokens that π wrote.
        `length_before`, `length_after`: mean tokens of a reply, no more than `NEW_TOKENS`; `length_change` with
            `_low`, `_high`: the mean difference, prompt by prompt.
        `distinct_1_before`, …, `distinct_2_after`: different tokens, or pairs of neighbours, as a share of all in the
            replies together (Li et al. 2016, arXiv:1510.03055); longer replies have less.
        `repeated_before`, `repeated_after`: the share of a reply's 4-grams that it had before.

    Raises:
        ModelError: the device's memory is full, or the chat template refuses the prompts.
    """
    figures = _of_pairs(lens, pairs, margins) | _of_replies(lens, duet, _prompts(lens, pairs)[:most])
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def measure_again(run: Run, *, most: int = PROMPTS) -> tuple[dict[str, float], bool]:
    """Measure a finished *run* anew, and record it; returns its evaluation, and whether the card has it too.

    Raises:
        RunError: the run has not finished.
        ModelError: as `measure`, or the base model cannot be loaded.
    """
    lens = Lens.open(run)
    figures = measure(lens, Duet.of(lens.model, lens.tokenizer), run.pairs("held_out"), most=most)
    with lock_of(run):
        rendered = record(run, figures)
        return run.evaluation, rendered


def bounded(name: str, interval: Interval | None) -> dict[str, float]:
    """The ends of the interval of the figure *name*, as evaluation.json has them."""
    return {f"{name}_low": interval[0], f"{name}_high": interval[1]} if interval else {}


def _of_pairs(lens: Lens, pairs: Sequence[PreferencePair], margins: Sequence[float]) -> dict[str, float]:
    """The intervals of training's own figures, by drawing prompts with all their pairs."""
    if len(pairs) > PAIRS:
        return {}
    of_prompts: dict[bytes, list[float]] = {}
    known = margins if len(margins) == len(pairs) else _margins(lens, pairs)
    for pair, margin in zip(pairs, known, strict=True):
        if margin is not None:
            of_prompts.setdefault(prompt_digest(pair), []).append(margin)
    groups = list(of_prompts.values())
    sizes, right = [len(group) for group in groups], [sum(margin > 0 for margin in group) for group in groups]
    if sum(right) in (0, sum(sizes)):  # resamples would all be the same, and prove nothing
        accuracy: Interval | None = wilson(float(bool(sum(right))), len(groups)) if groups else None
    else:
        accuracy = bootstrap(right, sizes)
    return bounded("reward_accuracy", accuracy) | bounded("margin", bootstrap(list(map(sum, groups)), sizes))


def _margins(lens: Lens, pairs: Sequence[PreferencePair]) -> Iterator[float | None]:
    """The margin of each pair, where it can be read."""
    questions = (
        Question(pair.prompt, [pair.chosen, pair.rejected], pair.tools, pair.chat_template_kwargs) for pair in pairs
    )
    for found in lens.read(questions):
        yield None if isinstance(found, Unreadable) else found[0].reward - found[1].reward


def _prompts(lens: Lens, pairs: Sequence[PreferencePair]) -> list[Messages]:
    """The prompts of *pairs*, each once, that leave as much room for a reply as they take."""
    prompts = {prompt_digest(pair): pair.prompt for pair in pairs}
    return [prompt for prompt in prompts.values() if 2 * lens.length(prompt) <= lens.recipe.max_length]


def _of_replies(lens: Lens, duet: Duet, prompts: Sequence[Messages]) -> dict[str, float]:
    if not prompts:
        return {}
    room = min(NEW_TOKENS, lens.recipe.max_length // 2)
    written = duet.write(prompts, temperature=None, seed=lens.recipe.seed, max_new_tokens=room)
    return {"prompts": len(prompts)} | _kl(lens, written) | _lengths(written) | _variety(written)


def _kl(lens: Lens, written: Sequence[Written]) -> dict[str, float]:
    read = lens.read_tokens([(both.prompt, both.after) for both in written])
    sums, sizes = [math.fsum(rewards) / lens.recipe.beta for rewards in read], [len(both.after) for both in written]
    return {"kl": math.fsum(sums) / sum(sizes)} | bounded("kl", bootstrap(sums, sizes))


def _lengths(written: Sequence[Written]) -> dict[str, float]:
    changes = [len(both.after) - len(both.before) for both in written]
    return {
        "length_before": fmean(len(both.before) for both in written),
        "length_after": fmean(len(both.after) for both in written),
        "length_change": fmean(changes),
        **bounded("length_change", of_mean(changes)),
    }


def _variety(written: Sequence[Written]) -> dict[str, float]:
    sides: Mapping[str, list[list[int]]] = {
        "before": [both.before for both in written],
        "after": [both.after for both in written],
    }
    return {
        figure: value
        for side, replies in sides.items()
        for figure, value in {
            f"distinct_1_{side}": _distinct([[(token,) for token in reply] for reply in replies]),
            f"distinct_2_{side}": _distinct([list(pairwise(reply)) for reply in replies]),
            f"repeated_{side}": fmean(map(repeated, replies)),
        }.items()
    }


def _distinct(replies: Sequence[Sequence[tuple[int, ...]]]) -> float:
    grams = [gram for reply in replies for gram in reply]
    return len(set(grams)) / len(grams) if grams else math.nan
