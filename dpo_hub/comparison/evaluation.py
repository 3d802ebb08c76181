"""Evaluates a policy against its reference on held-out prompts: how far it moved, and how its replies differ.

Knows nothing of the command line or of judges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from statistics import fmean
from typing import NamedTuple

from ..preferences import PreferencePair, text_of
from ..preferences.replies import Question
from ..preferences.split import prompt_digest
from ..preferences.table import Unreadable
from ..runs.intervals import Interval, bootstrap, of_mean, of_share, wilson
from ..runs.run import Run
from ..training.probe import repeated
from .duet import Duet, Replies, ReplyIds
from .lens import Lens
from .likeness import StyleClassifier
from .record import lock_of, save_figures

PROMPTS = 24
"""The number of prompts to answer: few, since every training ends with this evaluation."""
PAIRS = 1_000
"""The most pairs scored for an interval; with more, sampling error is small."""
NEW_TOKENS = 64
"""The most tokens of a reply, before and after: about fifty words of English show its style."""
RELIABLE = 0.6
"""`StyleClassifier` judges replies only if the lower bound of its accuracy on held-out pairs is above this."""
LIKE_CHOSEN = "like_chosen"
"""The prefix of the names of `StyleClassifier` figures."""


class Measured(NamedTuple):
    """The figures of `measure`, and the replies they are based on, each with the last pair of its prompt."""

    figures: dict[str, float]
    replies: Sequence[tuple[PreferencePair, Replies]] = ()


def measure(
    lens: Lens,
    pairs: Sequence[PreferencePair],
    margins: Sequence[float] = (),
    *,
    trained: Sequence[PreferencePair] = (),
    most: int = PROMPTS,
) -> Measured:
    """Measure the policy on held-out *pairs*, and its replies at temperature 1 to up to *most* of their prompts.

    The pairs' *margins* are computed unless one is given for each. `StyleClassifier` learns from the *trained* pairs.

    Returns those figures that are finite; `_low` and `_high` bound a figure with 95 % confidence over prompts:
        `reward_accuracy_low`, `_high`, `margin_low`, `_high`: only for up to `PAIRS` pairs.
        `prompts`: how many were answered.
        `changed`: the share of these prompts whose two replies are not identical.
        `kl`, `_low`, `_high`: KL(π‖π_ref) in nats per token, the mean of log π − log π_ref over the tokens π wrote.
        `length_before`, `length_after`: mean tokens per reply, capped at `NEW_TOKENS`; `length_change` with
            `_low`, `_high`: the mean difference, prompt by prompt; `length_chosen`: the same for the chosen replies.
        `distinct_1_before`, …, `distinct_2_after`: distinct tokens, or pairs of adjacent tokens, as a share of all in
            the replies together (Li et al. 2016, arXiv:1510.03055); lower for longer replies.
        `repeated_before`, `repeated_after`: the share of a reply's 4-grams that occurred earlier in it.
        `like_chosen_right`, `_low`, `_high`: the share of up to `PAIRS` pairs, averaged over prompts, whose chosen
            reply `StyleClassifier` recognises. If the lower bound is above `RELIABLE`: `like_chosen_before`,
            `like_chosen_after`, the share of replies that read like the chosen ones, and `like_chosen_change` with
            `_low`, `_high`.

    Raises:
        ModelError: the device's memory is full, or the chat template rejects the prompts.
    """
    duet = Duet.of(lens.model, lens.tokenizer)
    classifier, asked = StyleClassifier.learn(trained), list(islice(_with_short_prompts(lens, _by_prompt(pairs)), most))
    reliability = _reliability(classifier, _by_prompt(pairs[:PAIRS])) if trained else {}
    reliable = classifier if reliability.get(f"{LIKE_CHOSEN}_right_low", 0) > RELIABLE else None
    room = min(NEW_TOKENS, lens.recipe.max_length // 2)
    prompts = [of_prompt[-1].prompt for of_prompt in asked]
    written = duet.sample_ids(prompts, temperature=None, seed=lens.recipe.seed, max_new_tokens=room) if asked else []
    replies = [duet.decode(both) for both in written]
    figures = _pair_figures(lens, pairs, margins) | reliability
    if asked:
        chosen = fmean(min(room, _tokens(duet, pair)) for of_prompt in asked for pair in of_prompt)
        figures |= _reply_figures(lens, written, replies) | {"length_chosen": chosen}
        figures |= _like_chosen(reliable, replies, asked) if reliable else {}
    known = {name: value for name, value in figures.items() if math.isfinite(value)}
    return Measured(known, [(of_prompt[-1], both) for of_prompt, both in zip(asked, replies, strict=True)])


def measure_again(run: Run, *, most: int = PROMPTS) -> tuple[dict[str, float], bool]:
    """Measure a finished *run* again and record the figures; return its evaluation and whether its card was updated.

    Raises:
        RunError: the run has not finished.
        ModelError: as `measure`, or the base model cannot be loaded.
    """
    lens, pairs = Lens.open(run), run.splits()
    figures = measure(lens, pairs["held_out"], trained=pairs["train"], most=most).figures
    with lock_of(run):
        rendered = save_figures(run, figures, instead_of=LIKE_CHOSEN)
        return run.evaluation, rendered


def bounded(name: str, interval: Interval | None) -> dict[str, float]:
    """The bounds of the figure *name*, named as in evaluation.json."""
    return {f"{name}_low": interval[0], f"{name}_high": interval[1]} if interval else {}


def _pair_figures(lens: Lens, pairs: Sequence[PreferencePair], margins: Sequence[float]) -> dict[str, float]:
    """The intervals of training's own figures, by resampling prompts with all their pairs."""
    if len(pairs) > PAIRS:
        return {}
    of_prompts: dict[bytes, list[float]] = {}
    known = margins if len(margins) == len(pairs) else _margins(lens, pairs)
    for pair, margin in zip(pairs, known, strict=True):
        if margin is not None:
            of_prompts.setdefault(prompt_digest(pair), []).append(margin)
    groups = list(of_prompts.values())
    sizes, right = [len(group) for group in groups], [sum(margin > 0 for margin in group) for group in groups]
    if sum(right) in (0, sum(sizes)):  # resamples would all be the same
        accuracy: Interval | None = wilson(float(bool(sum(right))), len(groups)) if groups else None
    else:
        accuracy = bootstrap(right, sizes)
    return bounded("reward_accuracy", accuracy) | bounded("margin", bootstrap(list(map(sum, groups)), sizes))


def _margins(lens: Lens, pairs: Sequence[PreferencePair]) -> Iterator[float | None]:
    """The margin of each pair; None if the pair cannot be scored."""
    questions = (
        Question(pair.prompt, [pair.chosen, pair.rejected], pair.tools, pair.chat_template_kwargs) for pair in pairs
    )
    for found in lens.score(questions):
        yield None if isinstance(found, Unreadable) else found[0].reward - found[1].reward


def _by_prompt(pairs: Sequence[PreferencePair]) -> list[list[PreferencePair]]:
    """*pairs*, grouped by prompt."""
    groups: dict[bytes, list[PreferencePair]] = {}
    for pair in pairs:
        groups.setdefault(prompt_digest(pair), []).append(pair)
    return list(groups.values())


def _with_short_prompts(lens: Lens, groups: Sequence[Sequence[PreferencePair]]) -> Iterator[Sequence[PreferencePair]]:
    """Those of *groups* whose prompts fill at most half of `max_length`."""
    return (pairs for pairs in groups if 2 * lens.length(pairs[-1].prompt) <= lens.recipe.max_length)


def _reliability(words: StyleClassifier, groups: Sequence[Sequence[PreferencePair]]) -> dict[str, float]:
    right = [words.accuracy(pairs) for pairs in groups]
    name = f"{LIKE_CHOSEN}_right"
    return {name: fmean(right), **bounded(name, of_share(right))} if right else {}


def _reply_figures(lens: Lens, written: Sequence[ReplyIds], replies: Sequence[Replies]) -> dict[str, float]:
    """The figures of the replies, as token ids and as texts."""
    return {
        "prompts": len(replies),
        "changed": fmean(both.before != both.after for both in replies),
        **_kl(lens, written),
        **_lengths(written),
        **_variety(written),
    }


def _tokens(duet: Duet, pair: PreferencePair) -> int:
    """The number of tokens of *pair*'s chosen reply, including the end token."""
    return len(duet.tokenizer(text_of(pair.chosen), add_special_tokens=False)["input_ids"]) + 1


def _like_chosen(
    classifier: StyleClassifier, replies: Sequence[Replies], asked: Sequence[Sequence[PreferencePair]]
) -> dict[str, float]:
    before, after = (
        [classifier.is_like_chosen(getattr(both, side), pairs) for both, pairs in zip(replies, asked, strict=True)]
        for side in ("before", "after")
    )
    name = f"{LIKE_CHOSEN}_change"
    changes = [now - then for then, now in zip(before, after, strict=True)]
    # scaled to a share in 0..1, so that the interval has width even if all replies gain
    low, high = of_share([(1 + change) / 2 for change in changes]) if any(changes) else (0.5, 0.5)
    change = bounded(name, (2 * low - 1, 2 * high - 1))
    shares = {f"{LIKE_CHOSEN}_before": fmean(before), f"{LIKE_CHOSEN}_after": fmean(after)}
    return {**shares, name: fmean(after) - fmean(before), **change}


def _kl(lens: Lens, written: Sequence[ReplyIds]) -> dict[str, float]:
    read = lens.token_rewards([(both.prompt, both.after) for both in written])
    sums, sizes = [math.fsum(rewards) / lens.recipe.beta for rewards in read], [len(both.after) for both in written]
    return {"kl": math.fsum(sums) / sum(sizes)} | bounded("kl", bootstrap(sums, sizes))


def _lengths(written: Sequence[ReplyIds]) -> dict[str, float]:
    changes = [len(both.after) - len(both.before) for both in written]
    return {
        "length_before": fmean(len(both.before) for both in written),
        "length_after": fmean(len(both.after) for both in written),
        "length_change": fmean(changes),
        **bounded("length_change", of_mean(changes)),
    }


def _variety(written: Sequence[ReplyIds]) -> dict[str, float]:
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
