"""Wilson's interval against figures that others computed."""

from __future__ import annotations

import pytest

from dpo_hub.comparison.intervals import wilson


def test_the_interval_is_wilsons() -> None:
    """As published figures have it, and never beyond 0 and 1."""
    assert wilson(0.64, 50) == pytest.approx((0.5014, 0.7586), abs=1e-4)
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe, Stat. Med. 17, 1998, table I
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert wilson(1, 3)[1] == 1
