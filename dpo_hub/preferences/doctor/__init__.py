"""Finds problems in preference pairs, with counts, rows and advice. Independent of file formats and models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from ..pairs import SHOWN_ROWS, PreferencePair, Preferences, pluralise
from .findings import Finding, Severity, by_severity, of_all, percent
from .model_checks import examine_with
from .sides import longer_side, swapped_names, swapped_sides
from .survey import Survey, survey

__all__ = ["examine", "examine_with"]

FEW_PAIRS, SOME_PAIRS = 50, 200
"""A tenth of 50 pairs is 5 held-out pairs, each worth 20 points of accuracy; with 200 pairs, each is worth 5."""
FEW_PROMPTS = 50
"""With fewer distinct prompts, the model may learn something that holds only for them."""
LEFT_OUT_SHARE, MOSTLY = 0.1, 0.5
"""A few unusable rows are normal; a tenth of a file suggests that a column was mistaken for another."""
LANGUAGE_SHARE, LANGUAGE_PAIRS = 0.05, 5
"""Fewer replies than this in a language may just be quotations or names."""


class _Sign(NamedTuple):
    """A problem visible in a single pair, reported as `In 12 of 500 pairs (2.4%)` followed by `says`."""

    kind: str
    severity: Severity
    says: str
    advice: str


_SIGNS = (
    _Sign(
        "identical-replies",
        "high",
        "chosen and rejected are the same but for case, white space and punctuation",
        "Remove them, unless punctuation is what you want to teach; the repaired file is without those that differ in "
        "capitals only.",
    ),
    _Sign(
        "contradictions",
        "high",
        "the same two replies to the same prompt are labelled both ways",
        "Decide which reply is better and keep that pair; the repaired file keeps neither.",
    ),
    _Sign(
        "secrets",
        "high",
        "there is what looks like a secret key or an access token",
        "Revoke it where it was issued, for a model repeats what it was trained on; the repaired file masks it.",
    ),
    _Sign(
        "near-identical-replies",
        "medium",
        "chosen and rejected differ by hardly a word",
        "Check that this difference is what you want the model to learn, and remove the pair if it is a slip.",
    ),
    _Sign(
        "duplicates",
        "medium",
        "everything is the same as in an earlier pair",
        "Remove the repeats, which count twice in training; the repaired file keeps the first.",
    ),
    _Sign(
        "near-duplicates",
        "medium",
        "prompt and replies are nearly those of an earlier pair",
        "Keep one of each unless the small difference matters: the others add weight and nothing new.",
    ),
    _Sign(
        "emails",
        "medium",
        "there is an e-mail address",
        "Replace the addresses of real people, which a model may repeat; the repaired file masks them.",
    ),
    _Sign(
        "chat-markup",
        "medium",
        "marks of a chat template, such as <|im_start|> or [INST], stand in the text",
        "Remove them, or give the turns as chat messages: the base model's own template adds its marks in training.",
    ),
    _Sign(
        "wrong-encoding",
        "medium",
        "letters are garbled, as in Ã© for é, or lost, as in \N{REPLACEMENT CHARACTER}",
        "Export the file again as UTF-8: what was lost on the way cannot be put back here.",
    ),
    _Sign(
        "control-characters",
        "low",
        "there are invisible control characters",
        "Take the repaired file, which is without them.",
    ),
)


def examine(
    preferences: Preferences, *, model_check: Callable[[Iterable[PreferencePair]], list[Finding]] | None = None
) -> list[Finding]:
    """List the problems in the pairs, most serious first.

    *model_check* adds checks against a base model: `lambda pairs: examine_with(tokenizer, pairs, max_length)`. The
    pairs are read at most twice, and once more for *model_check*.
    """
    found = survey(preferences.pairs)
    checks = (_in_pairs, _amount, _near_prompts, longer_side, swapped_sides, _languages, _systems)
    findings = chain(_left_out(preferences), swapped_names(preferences), *(check(found) for check in checks))
    return by_severity([*findings, *(model_check(preferences.pairs) if model_check else ())])


def _in_pairs(found: Survey) -> Iterator[Finding]:
    for sign in _SIGNS:
        if tally := found.tallies.get(sign.kind):
            message = f"In {of_all(tally.count, found.pairs)} {sign.says}."
            yield tally.finding(sign.kind, message, sign.advice, sign.severity)


def _amount(found: Survey) -> Iterator[Finding]:
    pairs, prompts = found.pairs, found.prompts
    if pairs < SOME_PAIRS:
        yield Finding(
            "few-pairs",
            f"There {'is' if pairs == 1 else 'are'} only {pluralise(pairs, 'pair')}.",
            pairs,
            (),
            f"With fewer than {FEW_PAIRS} there is hardly anything to learn from or to measure with; a few hundred "
            "make a difference that can be seen.",
            "high" if pairs < FEW_PAIRS else "medium",
        )
    if pairs >= FEW_PAIRS and prompts < FEW_PROMPTS:
        yield Finding(
            "few-prompts",
            f"The {pluralise(pairs, 'pair')} have only {pluralise(prompts, 'distinct prompt')}.",
            prompts,
            (),
            "Add pairs with other prompts: what is learnt from these may hold for these prompts only.",
            "medium",
        )


def _near_prompts(found: Survey) -> Iterator[Finding]:
    if (tally := found.near_prompts).count:
        yield tally.finding(
            "near-identical-prompts",
            f"{of_all(tally.count, found.prompts, 'distinct prompt')} read nearly like an earlier one.",
            "Word them alike or keep one of each: the split keeps only equal prompts together, and held-out pairs that "
            "were nearly trained on look better than they are.",
            "medium",
        )


def _left_out(preferences: Preferences) -> Iterator[Finding]:
    reasons = sorted(preferences.left_out.items(), key=lambda item: -len(item[1]))
    count = sum(len(rows) for _, rows in reasons)
    rows = max(preferences.rows, len(preferences.pairs) + count)
    if count and count >= LEFT_OUT_SHARE * rows:
        told = "; ".join(f"{reason}: {percent(len(numbers), rows)}" for reason, numbers in reasons[:3])
        yield Finding(
            "rows-left-out",
            f"{of_all(count, rows, 'row')} gave no pair ({told}{' …' if len(reasons) > 3 else ''}).",
            count,
            [row for _, numbers in reasons for row in numbers][:SHOWN_ROWS],
            "Fill in those cells, or check that each column was taken for what it is.",
            "high" if count >= MOSTLY * rows else "medium",
        )


def _languages(found: Survey) -> Iterator[Finding]:
    told = sum(tally.count for tally in found.languages.values())
    least = max(LANGUAGE_PAIRS, LANGUAGE_SHARE * told)
    often = sorted(found.languages.items(), key=lambda item: -item[1].count)
    clear = [(name, tally) for name, tally in often if tally.count >= least]
    if len(clear) > 1:
        yield Finding(
            "mixed-languages",
            "The chosen replies are in several languages: "
            f"{', '.join(f'{name} {percent(tally.count, told)}' for name, tally in clear)}.",
            sum(tally.count for _, tally in clear[1:]),
            [row for _, tally in clear[1:] for row in tally.rows][:SHOWN_ROWS],
            "If that is meant, see that there are enough pairs in each; if not, keep the language you need.",
            "low",
        )


def _systems(found: Survey) -> Iterator[Finding]:
    given, without = found.tallies["system"], found.tallies["no-system"]
    if given.count and without.count:
        fewer = min(given, without, key=lambda tally: tally.count)
        yield fewer.finding(
            "some-system-messages",
            f"In {of_all(given.count, found.pairs)} there is a system message, in the others there is none.",
            "Give all pairs the system message that the model will be used with, or none of them.",
            "medium",
        )
    if found.systems > 1:
        yield Finding(
            "several-system-messages",
            f"There are {pluralise(found.systems, 'different system message')}.",
            found.systems,
            (),
            "That is right for several roles; if one was meant, make them the same to the letter.",
            "low",
        )
