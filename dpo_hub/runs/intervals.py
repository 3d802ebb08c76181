"""Confidence intervals for counts and means. Only `bootstrap` and its callers need scipy."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean
from typing import Any

from ..errors import needing_extra

ERROR = 0.05
"""Error rate: how often an interval misses the true value, or votes that are fair coins produce a verdict."""
RESAMPLES = 2_000
"""Enough for the ends of a 95 % interval to be stable to a few hundredths of its width."""

Interval = tuple[float, float]
Statistic = Callable[..., Any]
"""A function of arrays of the same shape and the `axis` to reduce, as scipy calls it."""


def wilson(share: float, number: int, *, error: float = ERROR) -> Interval:
    """Bound the true share, given a *share* of *number* draws: Wilson's score interval (JASA 22, 1927, p. 209).

    (p̂ + z²/2n ± z √(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n), with z the normal quantile of 1 − *error*/2.
    """
    if not number:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(1 - error / 2)
    middle, spread = share + z**2 / (2 * number), z * math.sqrt(share * (1 - share) / number + (z / (2 * number)) ** 2)
    low, high = ((middle + side * spread) / (1 + z**2 / number) for side in (-1, 1))
    return max(0.0, min(low, share)), min(1.0, max(high, share))  # rounding must not exclude the share itself


def ratio(tops: Any, bottoms: Any, axis: int = -1) -> Any:
    """Return Σ *tops* / Σ *bottoms*: a mean over grouped items, where *bottoms* are the group sizes."""
    return tops.sum(axis=axis) / bottoms.sum(axis=axis)


def bootstrap(*samples: Sequence[float], statistic: Statistic = ratio, seed: int = 0) -> Interval | None:
    """Bound *statistic* of *samples*, which are paired by index, with 95 % confidence.

    Uses BCa (Efron, JASA 82, 1987, 171–185), or the percentiles of the resamples if BCa is undefined. Indices are
    resampled, so they should be independent: prompts, not replies to one prompt. Returns None for fewer than two
    entries, for an entry that is not finite, or if neither method gives finite bounds.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    with needing_extra("train"):
        import numpy as np
        from scipy import stats
    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    if len(arrays[0]) < 2 or not all(np.isfinite(array).all() for array in arrays):
        return None
    if all((array == array[0]).all() for array in arrays):
        value = float(statistic(*arrays, axis=-1))
        return value, value
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # such as that BCa is undefined, which is checked below
            found = stats.bootstrap(
                arrays,
                statistic,
                n_resamples=RESAMPLES,
                confidence_level=1 - ERROR,
                method=method,
                paired=True,
                vectorized=True,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            return float(found.low), float(found.high)
    return None


def of_mean(values: Sequence[float]) -> Interval | None:
    """Bound the mean of *values* with `bootstrap`."""
    return bootstrap(values, [1.0] * len(values))


def of_share(outcomes: Sequence[float]) -> Interval:
    """Bound the mean of *outcomes* in 0..1 by bootstrap, or by Wilson if they are all the same or bootstrap fails.

    Resamples of equal outcomes are all equal, but ten wins out of ten do not prove that there is never a loss.
    """
    found = of_mean(outcomes) if len(set(outcomes)) > 1 else None
    return found or wilson(fmean(outcomes) if outcomes else 0.0, len(outcomes))
