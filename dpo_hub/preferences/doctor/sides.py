"""What the chosen side has that the rejected side has not: length, and signs that the two are swapped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from statistics import median

from ..pairs import Preferences
from .findings import Finding, of_all
from .survey import Survey

LONGER_SHARE, SHORTER_SHARE, LENGTH_PAIRS = 0.8, 0.95, 20
"""In ordinary preferences the longer reply wins somewhat more often than not; four in five is more than that. Brevity
is mostly meant, so only nearly all pairs count. Under 20 pairs such shares come about by chance."""
SIDE_SHARE, SIDE_PAIRS, SIDE_RATIO = 0.04, 10, 5
"""What belongs on the rejected side is told when the chosen side shows it in this share of the pairs, in this many at
least, and this many times as often as the other: too many to be slips."""
TOUCHY_SHARE, MOSTLY_TOUCHY = 0.25, 0.5
"""Refusals are taken as wanted where this share of them concerns harm or what is private, and as the point of the file
where most do."""

_BAD = frozenset(
    "bad disliked dispreferred harmful incorrect inferior lose loser losing lost negative rejected toxic unsafe worse "
    "worst wrong".split()
)
_GOOD = frozenset("accepted best better chosen correct good liked positive preferred safe win winner winning".split())
_NEGATIONS = frozenset("no non not un".split())

_CONTRARY = {
    "noise": (
        "noise-chosen",
        "noise-rejected",
        "the chosen reply is noise (random keys, a word over and over, garbled letters) and the rejected one is not",
    ),
    "insults": ("rude-chosen", "rude-rejected", "there are insults in the chosen reply only"),
    "refusals": (
        "declines-chosen",
        "declines-rejected",
        "the chosen reply refuses or evades and the rejected one answers",
    ),
    "compliance": (
        "touchy-rejected",
        "touchy-chosen",
        "the prompt is about harm or what is private, the rejected reply refuses and the chosen one does not",
    ),
}
"""What speaks for swapped columns: in which tally it shows, in which the usual way round does, and how it is told."""


def longer_side(found: Survey) -> Iterator[Finding]:
    """Say where length alone tells chosen from rejected."""
    longer, shorter = found.tallies["longer-chosen"], found.tallies["longer-rejected"]
    if found.pairs < LENGTH_PAIRS:
        return
    times = median(found.ratios)
    if longer.count >= LONGER_SHARE * found.pairs:
        yield longer.finding(
            "chosen-longer",
            f"In {of_all(longer.count, found.pairs)} the chosen reply is the longer one, typically {times:.1f} "
            "times as long as the rejected one.",
            "DPO will learn to write more, whatever else it learns: add pairs in which the shorter reply is better.",
            "medium",
        )
    elif shorter.count >= SHORTER_SHARE * found.pairs:
        yield shorter.finding(
            "chosen-shorter",
            f"In {of_all(shorter.count, found.pairs)} the chosen reply is the shorter one, typically {times:.0%} "
            "of the length of the rejected one.",
            "DPO will learn to write less: right if brevity is what you want; if not, add pairs the other way round.",
            "low",
        )


def swapped_names(preferences: Preferences) -> Iterator[Finding]:
    """Say where the columns' own names speak against how they were taken."""
    for part, contrary, usual in (("chosen", _BAD, _GOOD), ("rejected", _GOOD, _BAD)):
        column = preferences.columns.get(part, "")
        named = set(re.findall("[a-z]+", re.sub("([a-z])([A-Z])", r"\1 \2", column).lower()))
        if named & contrary and not named & (usual | _NEGATIONS):
            yield Finding(
                f"swapped-by-name-{part}",
                f"The {part} replies of all {len(preferences.pairs):,} pairs come from the column `{column}`.",
                len(preferences.pairs),
                (),
                "Are chosen and rejected swapped? If the column is what its name says, exchange the two columns.",
                "high",
            )


def swapped_sides(found: Survey) -> Iterator[Finding]:
    """Say where the chosen replies look like rejected ones.

    A refusal is right where harm is asked for, and wrong elsewhere: what the pairs are about decides how it is taken.
    """
    for kind, (contrary, usual, says) in _CONTRARY.items():
        tally, other = found.tallies[contrary], found.tallies[usual]
        if tally.count >= max(SIDE_PAIRS, SIDE_SHARE * found.pairs, SIDE_RATIO * other.count) and _unmeant(kind, found):
            yield tally.finding(
                f"swapped-by-{kind}",
                f"In {of_all(tally.count, found.pairs)} {says}; the other way round it is {other.count:,}.",
                "Are chosen and rejected swapped? Look at these rows, and exchange the two columns if they are; if "
                "this is what you want to teach, all is well.",
                "high",
            )


def _unmeant(kind: str, found: Survey) -> bool:
    """Whether refusals, where the finding is about them, are rather a slip than the point of the file."""
    declining = {side: found.tallies[f"declines-{side}"].count for side in ("chosen", "rejected")}
    touchy = {side: found.tallies[f"touchy-{side}"].count for side in ("chosen", "rejected")}
    if kind == "refusals":
        return touchy["chosen"] < TOUCHY_SHARE * declining["chosen"]
    return kind != "compliance" or touchy["rejected"] >= MOSTLY_TOUCHY * declining["rejected"]
