"""Signs of life in a run's folder, for whoever looks from another machine or wonders whether a worker is stuck."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .run import Run

BEAT = 5.0
"""Seconds between two signs."""


@contextmanager
def heartbeat(run: Run) -> Iterator[None]:
    """Leave signs of life as long as the context lasts, however long a step takes."""
    ended = threading.Event()

    def beat() -> None:
        while True:
            with suppress(OSError):
                run.beat()
            if ended.wait(BEAT):
                return

    thread = threading.Thread(target=beat, name=f"heartbeat of {run.id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
