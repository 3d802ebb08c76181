"""Signs of life in a run's folder, for whoever looks from another machine or wonders whether a worker is stuck."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .run import Run

BEAT = 5.0
"""Seconds between two signs."""


@contextmanager
def heartbeat(*runs: Run) -> Iterator[None]:
    """Leave signs of life of *runs* as long as the context lasts, however long a step takes."""
    ended = threading.Event()

    def beat() -> None:
        while True:
            for run in runs:
                with suppress(OSError):
                    run.beat()
            if ended.wait(BEAT):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
