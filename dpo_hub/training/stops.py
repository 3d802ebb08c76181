"""Delays a stop while weights change; everywhere else it takes effect at once. Knows nothing of runs.

Between two updates the weights, the optimizer and the schedule are those of the last step, even during a forward or
backward pass; so a step can be abandoned halfway, and a checkpoint of the last one written.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback

from .processes import WORLD_SIZE
from .randomness import random_state

STOPPING = (signal.SIGINT, signal.SIGTERM)


class StopHandler(TrainerCallback):
    """Turns SIGINT and SIGTERM into a `KeyboardInterrupt` that never interrupts an update.

    `consistent` says that weights, optimizer and schedule belong to the same step, whose random state is `random`.
    Several processes cannot leave a step one by one: they share `requested`, and nothing is raised until they have
    `agreed`.
    """

    def __init__(self) -> None:
        self.requested = self.agreed = False
        self.consistent = WORLD_SIZE == 1
        self.random: dict[str, Any] | None = None

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Install the handlers within the context. Does nothing outside the main thread: Python does not allow it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Delay stops within the context, so that nothing interrupts writing."""
        self.consistent = False
        try:
            yield
        finally:
            self.consistent = WORLD_SIZE == 1

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a stop take effect at once within the context. Use only between two steps, when weights do not change."""
        self._allow_stops()
        yield
        self.consistent = False  # after an error, it stays true: the last step can still be saved

    def _on_signal(self, _number: int, _frame: Any) -> None:
        self.requested = True
        if self.consistent:
            raise KeyboardInterrupt

    def _allow_stops(self) -> None:
        self.consistent = WORLD_SIZE == 1
        if self.requested and self.consistent:
            raise KeyboardInterrupt

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._allow_stops()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.consistent = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.random = random_state()  # saved here, as a stop may come in the middle of the next step

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._allow_stops()
