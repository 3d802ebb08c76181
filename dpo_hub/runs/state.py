"""Where a run stands, and which process has it in hand. Knows nothing of folders or of training."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import psutil

ENDED = ("finished", "failed", "stopped")
SILENCE = 60.0
"""Seconds without a heartbeat after which a process on another machine counts as gone: a dozen beats missed."""


@dataclass(frozen=True)
class Process:
    """A process, named for good: a later one may get the same number, but not the same start.

    `started` is in seconds since the machine's boot, which setting the clock does not change.
    """

    host: str
    pid: int
    started: float

    @classmethod
    def of(cls, pid: int | None = None) -> Process:
        """Name the process *pid*, by default this one."""
        process = psutil.Process(pid)
        return cls(platform.node(), process.pid, _started(process))

    def alive(self, silence: float = 0.0) -> bool:
        """Whether it still runs. On another machine its *silence*, seconds since the last heartbeat, has to tell."""
        if self.host != platform.node():
            return silence < SILENCE
        try:
            process = psutil.Process(self.pid)
            return abs(_started(process) - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def _started(process: psutil.Process) -> float:
    return process.create_time() - psutil.boot_time()


@dataclass(frozen=True)
class State:
    """Where a run stands: `queued`, `running`, `finished`, `failed` or `stopped`, with the reason.

    `steps` is how many there will be in all, 0 until that is known, and `done` how many of them were done when the
    worker took the run up. An end is not `expected` where nobody meant it, so that taking the run up again may well go
    better. `worker` works on the run or waits to, and `keeper` started it and will tell how it ended; either may be
    missing, and both are where the run was never started or has ended.
    """

    status: str
    reason: str = ""
    steps: int = 0
    done: int = 0
    worker: Process | None = None
    keeper: Process | None = None
    expected: bool = True
    updated: float = 0.0

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> State:
        """The state that was written as *found*."""
        known = {setting.name: found[setting.name] for setting in fields(cls) if setting.name in found}
        processes = {part: Process(**named) for part in ("worker", "keeper") if (named := found.get(part))}
        return cls(**{**known, **processes})

    def has_process(self, silence: float = 0.0) -> bool:
        """Whether a process that sees to the run still runs."""
        return any(process.alive(silence) for process in (self.keeper, self.worker) if process)

    @property
    def ended(self) -> bool:
        return self.status in ENDED
