"""Wilson's interval against figures that others computed."""

from __future__ import annotations

import math
import random

import pytest

from dpo_hub.runs.intervals import bootstrap, of_mean, of_share, wilson


def test_the_interval_is_wilsons() -> None:
    """As published figures have it, and never beyond 0 and 1."""
    assert wilson(0.64, 50) == pytest.approx((0.5014, 0.7586), abs=1e-4)
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe, Stat. Med. 17, 1998, table I
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert wilson(1, 3)[1] == 1


def test_the_bootstrap_covers_as_often_as_it_says() -> None:
    """Of a skewed distribution's mean about nineteen intervals in twenty have it inside."""
    dice = random.Random(3)
    hits = 0
    for _ in range(100):
        low, high = of_mean([dice.expovariate(1) for _ in range(40)]) or (0, 0)
        hits += low <= 1 <= high
    assert 88 <= hits <= 99


def test_what_says_nothing_has_no_interval_or_a_point() -> None:
    """One value proves nothing, equal values of a mean have no spread, and shares that are all alike are Wilson's."""
    assert bootstrap([1.0], [1.0]) is None
    assert bootstrap([1.0, math.nan], [1.0, 1.0]) is None
    assert of_mean([2.0, 2.0, 2.0]) == (2.0, 2.0)
    assert of_share([1.0] * 10) == wilson(1.0, 10)
    low, high = of_share([1.0, 0.0, 0.5, 1.0])
    assert 0 <= low < 0.625 < high <= 1
