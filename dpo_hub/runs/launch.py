"""Starts, stops, resumes and removes runs. Their processes outlive their parent and share only the run's folder.

Does not import torch; only the worker process does.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import psutil
from filelock import Timeout

from ..errors import RunError
from .run import Run
from .state import Process, State

STOP_TIMEOUT = 4.0
"""Seconds that a worker gets to save a checkpoint before it is killed."""
LOCK_TIMEOUT = 2.0
"""Seconds that a process which has just ended the run may take to exit."""
POLL = 0.05
"""Seconds between two checks whether it has exited."""


def start(*runs: Run, keep_going: int = 0) -> subprocess.Popen[bytes]:
    """Start a detached keeper process for *runs*, one by one: it waits for the device, trains, and records the outcome.

    When this returns, the runs are `queued` by that process. It resumes a stopped or failed run from its last good
    checkpoint, and starts a new one from the beginning.

    Args:
        runs: runs that no process works on, in order.
        keep_going: how often to resume each run automatically if its worker dies.

    Returns:
        The keeper process. It exits when all runs have ended for good.

    Raises:
        RunError: one has finished, is already waiting or running, or trains on another machine.
    """
    with ExitStack() as held:
        for run in runs:
            _require_here(run)
            held.enter_context(_idle(run))
        with runs[0].log.open("ab") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-m", "dpo_hub.runs.keeper", str(keep_going), *(str(run.path) for run in runs)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        named = Process.of(keeper.pid)
        for run in runs:
            run.stop_asked.unlink(missing_ok=True)
            run.set_state(replace(run.written_state, status="queued", reason="", worker=None, keeper=named))
    # While this process lives, it must collect the keeper's exit status, or the keeper remains as a zombie.
    threading.Thread(target=keeper.wait, name="reaper", daemon=True).start()
    return keeper


@contextmanager
def _idle(run: Run) -> Iterator[None]:
    """Hold the lock of *run*, which no process works on.

    Raises:
        RunError: it has finished, or is already waiting or running.
    """
    try:
        with run.lock.acquire(timeout=LOCK_TIMEOUT):
            _require_idle(run)
            yield
    except Timeout:
        raise RunError(f"The run {run.id} is already running. See how it is going: dpo-hub status {run.id}") from None


def _require_here(run: Run) -> None:
    if run.remote:
        raise RunError(f"The run {run.id} trains on {run.remote['flavor']}. Look after it with dpo-hub on a terminal.")


def _require_idle(run: Run) -> None:
    state = run.state
    if state.status == "finished":
        raise RunError(f"The run {run.id} has finished; there is nothing left to do. Make a new one: dpo-hub train.")
    if state.worker or state.keeper or run.may_have_news:
        raise RunError(f"The run {run.id} is {state.status} already. See how it is going: dpo-hub status {run.id}")


def enable_options(run: Run, *, activation_checkpointing: bool, force: bool) -> None:
    """Turn on options of *run* that do not change its adapter.

    Raises:
        RunError: it has finished, or is waiting or running.
    """
    with _idle(run):
        recipe = run.asked
        spare = recipe.activation_checkpointing or activation_checkpointing
        run.write("recipe.json", replace(recipe, activation_checkpointing=spare, force=recipe.force or force).to_json())


def stop(run: Run, *, patience: float = STOP_TIMEOUT) -> None:
    """Ask the worker of *run* to save a checkpoint and exit, and wait for it; kill it if it is too slow.

    If it has to be killed, the last scheduled checkpoint remains. Several processes can leave a step only at its end,
    so long steps are interrupted. A run that has already ended is left unchanged.

    Args:
        run: any run on this machine.
        patience: seconds that the worker gets.

    Raises:
        RunError: its worker is on another machine.
    """
    _require_here(run)
    state = run.state
    if state.ended:
        return
    process = state.worker or state.keeper
    if process and process.host != Process.of().host:
        raise RunError(f"The run {run.id} is running on {process.host}. Stop it there.")
    run.stop_asked.touch()
    if state.worker and not _ends(state.worker, psutil.Process.terminate, patience):
        run.end("stopped", "It did not answer in time and was ended by force.")
        for other in _all_of(state):
            _ends(other, psutil.Process.kill, STOP_TIMEOUT)
    if not run.written_state.ended:
        run.end("stopped")  # the keeper notices and starts nothing, and a worker that is just starting exits


def _all_of(state: State) -> list[Process]:
    """Return all processes that work on the run, the worker last: once it is gone, the keeper continues."""
    found = {state.worker} if state.worker and state.worker.alive() else set()
    for above in filter(None, (state.worker, state.keeper)):
        with suppress(psutil.NoSuchProcess):
            found |= {Process.of(child.pid) for child in psutil.Process(above.pid).children(recursive=True)}
    return sorted(found, key=lambda one: one == state.worker)


def _ends(process: Process, how: Callable[[psutil.Process], None], patience: float) -> bool:
    """Make the process exit with *how*, wait, and return whether it is gone."""
    with suppress(psutil.NoSuchProcess):
        if process.alive():
            how(psutil.Process(process.pid))
    until = time.monotonic() + patience
    while process.alive() and time.monotonic() < until:
        time.sleep(POLL)
    return not process.alive()


def remove(run: Run) -> None:
    """Delete the folder of *run* and everything in it.

    Raises:
        RunError: it is waiting or running.
    """
    in_use = RunError(f"The run {run.id} is {run.state.status}. Stop it first: dpo-hub stop {run.id}")
    try:
        with run.lock.acquire(timeout=LOCK_TIMEOUT):
            state = run.state
            if state.worker or state.keeper or run.may_have_news:
                raise in_use
            run.remove()
    except Timeout:
        raise in_use from None
