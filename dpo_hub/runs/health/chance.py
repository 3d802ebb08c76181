"""What chance alone explains: exact tails of fair coin tosses, and means with their standard errors."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, sqrt
from statistics import fmean, stdev

RARE = 0.001
"""Probability at which chance alone may raise a finding. A run is checked repeatedly, so 1 in 20 would cry wolf."""


def binomial_cdf(heads: int, tosses: int) -> float:
    """Return P(X ≤ *heads*) for *tosses* of a fair coin."""
    return sum(comb(tosses, count) for count in range(heads + 1)) / (1 << tosses)


def clearly_above_half(share: float, count: int) -> bool:
    """Whether a *share* of *count* pairs would rarely be so high if each were ordered by a coin toss."""
    return binomial_cdf(count - round(share * count), count) < RARE


def clearly_below_half(share: float, count: int) -> bool:
    """Whether a *share* of *count* pairs would rarely be so low if each were ordered by a coin toss."""
    return binomial_cdf(round(share * count), count) < RARE


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of at least two *values*, and its standard error."""
    return fmean(values), stdev(values) / sqrt(len(values))


def fall_in_errors(before: float, after: float, count: int) -> float:
    """Return how far a share of *count* pairs fell from *before* to *after*, in standard errors of the difference.

    The pairs are the same both times, so their difference is less noisy than assumed here, and the figure errs on the
    cautious side. One extra pair on either side prevents a share of 0 or 1 from having no error at all.
    """
    smoothed = [(share * count + 1) / (count + 2) for share in (before, after)]
    return (before - after) / sqrt(sum(share * (1 - share) for share in smoothed) / count)
