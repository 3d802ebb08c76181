"""Heartbeats in a run's folder, for processes on other machines and for detecting a stuck worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .run import Run

BEAT = 5.0
"""Seconds between two heartbeats."""


@contextmanager
def heartbeat(*runs: Run) -> Iterator[None]:
    """Record heartbeats of *runs* as long as the context lasts, however long a step takes."""
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
