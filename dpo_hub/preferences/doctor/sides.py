"""Compares the chosen side with the rejected side: their lengths, and signs that the two are swapped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from statistics import median

from ..pairs import Preferences
from .findings import Finding, of_all
from .survey import Survey

LONGER_SHARE, SHORTER_SHARE, LENGTH_PAIRS = 0.8, 0.95, 20
"""In ordinary preferences the longer reply wins slightly more often than not; four in five is more than that. Brevity
is usually intended, so it is reported only if nearly all pairs show it. With fewer than 20 pairs, such shares occur by
chance."""
SIDE_SHARE, SIDE_PAIRS, SIDE_RATIO = 0.04, 10, 5
"""Thresholds for reporting chosen replies with a trait that belongs on the rejected side: the minimum share of pairs,
the minimum number of pairs, and how many times as often as on the rejected side. Above all three, it is no accident."""
SENSITIVE_SHARE, MOSTLY_SENSITIVE = 0.25, 0.5
"""Refusals count as intended if this share of them concerns harm or privacy, and as the purpose of the file if most
of them do."""

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
        "sensitive-rejected",
        "sensitive-chosen",
        "the prompt is about harm or what is private, the rejected reply refuses and the chosen one does not",
    ),
}
"""Evidence for swapped columns: the tally that counts it, the tally for the normal direction, and the wording."""


def longer_side(found: Survey) -> Iterator[Finding]:
    """Report if length alone separates chosen from rejected."""
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
    """Report if a column's name contradicts the side it was read as."""
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
    """Report if the chosen replies look like rejected ones.

    A refusal is right if the prompt asks for harm and wrong otherwise, so its meaning depends on what the pairs are
    about.
    """
    for kind, (contrary, usual, says) in _CONTRARY.items():
        tally, other = found.tallies[contrary], found.tallies[usual]
        if tally.count >= max(SIDE_PAIRS, SIDE_SHARE * found.pairs, SIDE_RATIO * other.count) and _is_accidental(
            kind, found
        ):
            yield tally.finding(
                f"swapped-by-{kind}",
                f"In {of_all(tally.count, found.pairs)} {says}; the other way round it is {other.count:,}.",
                "Are chosen and rejected swapped? Look at these rows, and exchange the two columns if they are; if "
                "this is what you want to teach, all is well.",
                "high",
            )


def _is_accidental(kind: str, found: Survey) -> bool:
    """Whether refusals, if the finding is about them, are an accident and not the purpose of the file."""
    declining = {side: found.tallies[f"declines-{side}"].count for side in ("chosen", "rejected")}
    sensitive = {side: found.tallies[f"sensitive-{side}"].count for side in ("chosen", "rejected")}
    if kind == "refusals":
        return sensitive["chosen"] < SENSITIVE_SHARE * declining["chosen"]
    return kind != "compliance" or sensitive["rejected"] >= MOSTLY_SENSITIVE * declining["rejected"]
