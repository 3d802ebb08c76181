"""One run at a time has the machine's device; the others wait in the order in which they came.

Who waits leaves a ticket, a file named after the time, with the run's folder in it. Tickets decide on the order only;
the device itself is a lock, which the system takes back from a process that dies, however it dies.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import RunError
from .run import Run, home

log = logging.getLogger(__name__)

POLL = 0.2
"""Seconds between two looks at the line."""


def line() -> list[Run]:
    """The runs that wait for the device, the first in line first."""
    return [run for _, run in _tickets()]


def run_on_device() -> Run | None:
    """The run that has the device, where one has it."""
    try:
        run = Run(Path(_holder().read_text(encoding="utf-8")))
        return run if _taken() and run.state.status == "running" else None
    except FileNotFoundError:  # no run has had it yet, or the last was removed
        return None


def make_way(on: str, *, beside: bool = False) -> None:
    """Leave a device of the kind *on* to the run that trains there, unless the chat is to be *beside* it.

    A CPU is shared, with a warning.

    Raises:
        RunError: a run trains on the GPU.
    """
    run = run_on_device()
    if run is None:
        return
    if on == "cpu" or beside:
        log.warning("The run %s trains on this machine: the chat and the training slow each other down.", run.id)
    else:
        raise RunError(
            f"The run {run.id} trains on this machine's GPU, and a chat would slow it down. Try again when it has "
            "ended, or chat beside it: dpo-hub chat --beside"
        )


@contextmanager
def turn(run: Run) -> Iterator[None]:
    """Hold the device for *run*, once it is its turn."""
    try:
        wait_for_turn(run)
        device = _device()
        device.acquire()
    finally:
        _leave(run)
    try:
        _holder().write_text(str(run.path), encoding="utf-8")
        yield
    finally:
        device.release()


def wait_for_turn(run: Run) -> None:
    """Join the line, where *run* is not in it, and return when it is first and the device is free.

    The run's state has to name the process that waits.

    Raises:
        KeyboardInterrupt: the run has been asked to stop.
    """
    while True:
        waiting = line()
        if run.stop_asked.exists():
            raise KeyboardInterrupt
        if run not in waiting:
            join(run)
        elif waiting[0] == run and not _taken():
            return
        else:
            time.sleep(POLL)


def join(run: Run) -> None:
    """Take the last place in the line for *run*, whose state has to name the process that waits."""
    folder = home() / "queue"
    folder.mkdir(parents=True, exist_ok=True)
    ticket = folder / f"{time.time_ns():020d}-{run.id}"
    aside = ticket.with_name(f".{ticket.name}")
    aside.write_text(str(run.path), encoding="utf-8")
    aside.rename(ticket)


def _leave(run: Run) -> None:
    for ticket, of in _tickets():
        if of == run:
            ticket.unlink(missing_ok=True)


def _tickets() -> Iterator[tuple[Path, Run]]:
    """The tickets in order, without those of runs that nobody waits with any more."""
    for ticket in sorted((home() / "queue").glob("[!.]*")):
        try:
            run = Run(Path(ticket.read_text(encoding="utf-8")))
            waits = run.state.has_process()
        except FileNotFoundError:  # the ticket was given back just now, or its run was removed
            waits = False
        if waits:
            yield ticket, run
        else:
            ticket.unlink(missing_ok=True)


def _device() -> FileLock:
    return FileLock(home() / "device.lock")


def _holder() -> Path:
    """A file that names who had the device last."""
    return home() / "device.run"


def _taken() -> bool:
    try:
        with _device().acquire(timeout=0):
            return False
    except Timeout:
        return True
