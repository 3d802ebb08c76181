"""What chance alone would do: exact tails of fair coins, and means with their standard errors."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, sqrt
from statistics import fmean, stdev

RARE = 0.001
"""How seldom chance alone may raise a finding. A run is looked at again and again, so 1 in 20 would cry wolf."""


def at_most(heads: int, tosses: int) -> float:
    """P(X ≤ *heads*) for that many *tosses* of a fair coin."""
    return sum(comb(tosses, count) for count in range(heads + 1)) / (1 << tosses)


def clearly_above_half(share: float, count: int) -> bool:
    """Whether a *share* of *count* pairs would seldom be so high if each were ordered by a coin."""
    return at_most(count - round(share * count), count) < RARE


def clearly_below_half(share: float, count: int) -> bool:
    """Whether a *share* of *count* pairs would seldom be so low if each were ordered by a coin."""
    return at_most(round(share * count), count) < RARE


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean of *values*, two at least, and its standard error."""
    return fmean(values), stdev(values) / sqrt(len(values))


def fall_in_errors(before: float, after: float, count: int) -> float:
    """How far a share of *count* pairs fell from *before* to *after*, in standard errors of the difference.

    The pairs are the same at both times, which makes their difference less noisy than assumed here: the figure errs on
    the side of silence. One pair more on either side keeps a share of 0 or 1 from having no error at all.
    """
    smoothed = [(share * count + 1) / (count + 2) for share in (before, after)]
    return (before - after) / sqrt(sum(share * (1 - share) for share in smoothed) / count)
