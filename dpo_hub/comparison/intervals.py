"""How far a share that was counted can be trusted."""

from __future__ import annotations

import math
from statistics import NormalDist

ERROR = 0.05
"""How often an interval misses, or a verdict comes of votes that are fair coins."""


def wilson(share: float, number: int, *, error: float = ERROR) -> tuple[float, float]:
    """Bound the share that *share* of *number* draws estimates: Wilson's score interval (JASA 22, 1927, p. 209).

    (p̂ + z²/2n ± z √(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n), with z the normal quantile of 1 − *error*/2.
    """
    if not number:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(1 - error / 2)
    middle, spread = share + z**2 / (2 * number), z * math.sqrt(share * (1 - share) / number + (z / (2 * number)) ** 2)
    low, high = ((middle + side * spread) / (1 + z**2 / number) for side in (-1, 1))
    return max(0.0, low), min(1.0, high)
