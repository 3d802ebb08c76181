from __future__ import annotations

from collections.abc import Iterator

import pytest

from dpo_hub.training.stopwatch import Stopwatch


def ticking(*times: float) -> Iterator[float]:
    yield from times


def test_time_within_another_span_counts_once() -> None:
    """What is inside is taken off what is around it; the same name adds up."""
    clock = ticking(0, 10, 13, 20, 30, 31)
    watch = Stopwatch(lambda: next(clock))
    with watch.timing("steps"), watch.timing("looks"):
        pass
    with watch.timing("steps"):
        pass
    assert watch.seconds == {"looks": 3, "steps": 18}


def test_time_counts_where_something_fails() -> None:
    """A span ends with whatever ends its block."""
    clock = ticking(0, 5)
    watch = Stopwatch(lambda: next(clock))
    with pytest.raises(ValueError, match="torn"), watch.timing("steps"):
        raise ValueError("torn")
    assert watch.seconds == {"steps": 5}
