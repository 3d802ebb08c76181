"""Measures where a run's time goes. Knows nothing of what is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up seconds by what they were spent on; in nested spans, time counts for the inner one only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = {}
        self._inner = 0.0

    @contextmanager
    def timing(self, what: str) -> Iterator[None]:
        """Count the time of this block as spent on *what*."""
        began, outer, self._inner = self.clock(), self._inner, 0.0
        try:
            yield
        finally:
            took = self.clock() - began
            self.seconds[what] = self.seconds.get(what, 0.0) + took - self._inner
            self._inner = outer + took
