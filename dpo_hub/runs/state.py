"""The state of a run, and the process responsible for it. Independent of folders and of training."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import psutil

ENDED = ("finished", "failed", "stopped")
HEARTBEAT_TIMEOUT = 60.0
"""Seconds without a heartbeat after which a process on another machine counts as gone: a dozen missed beats."""


@dataclass(frozen=True)
class Process:
    """Identifies a process permanently: a later one may get the same process id, but not the same start time.

    `started` is in seconds since the machine's boot, so setting the clock does not change it.
    """

    host: str
    pid: int
    started: float

    @classmethod
    def of(cls, pid: int | None = None) -> Process:
        """Identify the process *pid*, by default this one."""
        process = psutil.Process(pid)
        return cls(platform.node(), process.pid, _started(process))

    def alive(self, silence: float = 0.0) -> bool:
        """Whether it still runs. On another machine, *silence* (seconds since the last heartbeat) decides."""
        if self.host != platform.node():
            return silence < HEARTBEAT_TIMEOUT
        try:
            process = psutil.Process(self.pid)
            return abs(_started(process) - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def _started(process: psutil.Process) -> float:
    return process.create_time() - psutil.boot_time()


@dataclass(frozen=True)
class State:
    """The state of a run: `queued`, `running`, `finished`, `failed` or `stopped`, with the reason.

    `steps` is the total number of steps, 0 until it is known, and `done` is how many were done when the worker took
    over the run. An end is not `expected` if nobody intended it, so resuming the run may succeed. `worker` works on the
    run or waits to, and `keeper` started the worker and will record how it ended. Either may be missing; both are
    missing if the run was never started or has ended.
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
        """Restore the state from *found*, as written."""
        known = {setting.name: found[setting.name] for setting in fields(cls) if setting.name in found}
        processes = {part: Process(**named) for part in ("worker", "keeper") if (named := found.get(part))}
        return cls(**{**known, **processes})

    def has_process(self, silence: float = 0.0) -> bool:
        """Whether the keeper or the worker of the run is alive."""
        return any(process.alive(silence) for process in (self.keeper, self.worker) if process)

    @property
    def ended(self) -> bool:
        return self.status in ENDED
