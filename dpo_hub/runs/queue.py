"""One run at a time has the machine's device; the others wait in order of arrival.

A waiting process leaves a ticket: a file named after the time, which contains the path of the run's folder. Tickets
decide only the order. The device itself is a lock, which the system releases when its process dies, for any reason.
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
"""Seconds between two checks of the queue."""


def waiting_runs() -> list[Run]:
    """Return the runs that wait for the device, in order."""
    return [run for _, run in _tickets()]


def run_on_device() -> Run | None:
    """Return the run that has the device, or None."""
    try:
        run = Run(Path(_holder().read_text(encoding="utf-8")))
        return run if _taken() and run.state.status == "running" else None
    except FileNotFoundError:  # no run has had it yet, or the last was removed
        return None


def require_free_device(on: str, *, beside: bool = False) -> None:
    """Refuse to chat on a device of type *on* while a run trains there, unless *beside* allows both.

    On a CPU, or with *beside*, both run at once and a warning is logged.

    Raises:
        RunError: a run trains on the GPU, and *beside* is false.
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
def holding_device(run: Run) -> Iterator[None]:
    """Hold the device for *run* when its turn comes."""
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
    """Join the queue if *run* is not in it, and return when it is first and the device is free.

    The run's state must name the waiting process.

    Raises:
        KeyboardInterrupt: the run has been asked to stop.
    """
    while True:
        waiting = waiting_runs()
        if run.stop_asked.exists():
            raise KeyboardInterrupt
        if run not in waiting:
            join(run)
        elif waiting[0] == run and not _taken():
            return
        else:
            time.sleep(POLL)


def join(run: Run) -> None:
    """Add *run* at the end of the queue; its state must name the waiting process."""
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
    """Yield the tickets in order, and delete those of runs that have no waiting process any more."""
    for ticket in sorted((home() / "queue").glob("[!.]*")):
        try:
            run = Run(Path(ticket.read_text(encoding="utf-8")))
            waits = run.state.has_process()
        except FileNotFoundError:  # the ticket was just returned, or its run was removed
            waits = False
        if waits:
            yield ticket, run
        else:
            ticket.unlink(missing_ok=True)


def _device() -> FileLock:
    return FileLock(home() / "device.lock")


def _holder() -> Path:
    """Return the file that names the last run to have the device."""
    return home() / "device.run"


def _taken() -> bool:
    try:
        with _device().acquire(timeout=0):
            return False
    except Timeout:
        return True
