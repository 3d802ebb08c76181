"""Start, stop, resume and remove runs. Their processes outlive who started them: all they share is the run's folder.

Loads no torch: only the worker process does.
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
"""Seconds that a worker gets to leave a checkpoint, before it is ended by force."""
LOCK_TIMEOUT = 2.0
"""Seconds that a process which has just ended the run may take to be gone."""
POLL = 0.05
"""Seconds between two looks at whether it is gone."""


def start(*runs: Run, keep_going: int = 0) -> subprocess.Popen[bytes]:
    """Start a detached process that sees to *runs*, one by one: it waits for the device, works, and says how it ended.

    The runs are `queued`, by that process, when this returns. It takes up a run that has stopped or failed where its
    last good checkpoint left it, and a new one from the beginning.

    Args:
        runs: those that nobody works on, in their order.
        keep_going: how often to take each up again by itself when its worker dies.

    Returns:
        That process. It ends when all of them have, for good.

    Raises:
        RunError: one has finished, or is waiting or at work already.
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
    # Somebody has to collect its exit status as long as this process lives, or it stays behind as a zombie.
    threading.Thread(target=keeper.wait, name="reaper", daemon=True).start()
    return keeper


@contextmanager
def _idle(run: Run) -> Iterator[None]:
    """Hold the lock of *run*, which nobody works on.

    Raises:
        RunError: it has finished, or is waiting or at work already.
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


def change(run: Run, *, activation_checkpointing: bool, force: bool) -> None:
    """Have *run* go on with what does not change its adapter, where it is asked for.

    Raises:
        RunError: it has finished, or is waiting or at work.
    """
    with _idle(run):
        recipe = run.asked
        spare = recipe.activation_checkpointing or activation_checkpointing
        run.write("recipe.json", replace(recipe, activation_checkpointing=spare, force=recipe.force or force).to_json())


def stop(run: Run, *, patience: float = STOP_TIMEOUT) -> None:
    """Ask the worker of *run* to leave a checkpoint and go, and wait until it is gone; one that is slow is forced.

    Where it has to be forced, the checkpoint is the one that was due last. Several processes leave a step only at its
    end, so long steps are cut off. A run that has ended already is left as it is.

    Args:
        run: any run of this machine.
        patience: seconds that it gets.

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
        run.end("stopped")  # the keeper sees it and begins nothing, and a worker that is just starting goes


def _all_of(state: State) -> list[Process]:
    """Every process that works on the run, those beside the worker first: once that is gone, the keeper goes on."""
    found = {state.worker} if state.worker and state.worker.alive() else set()
    for above in filter(None, (state.worker, state.keeper)):
        with suppress(psutil.NoSuchProcess):
            found |= {Process.of(child.pid) for child in psutil.Process(above.pid).children(recursive=True)}
    return sorted(found, key=lambda one: one == state.worker)


def _ends(process: Process, how: Callable[[psutil.Process], None], patience: float) -> bool:
    """Tell the process to end, and wait: whether it is gone."""
    with suppress(psutil.NoSuchProcess):
        if process.alive():
            how(psutil.Process(process.pid))
    until = time.monotonic() + patience
    while process.alive() and time.monotonic() < until:
        time.sleep(POLL)
    return not process.alive()


def remove(run: Run) -> None:
    """Delete the folder of *run* and all that is in it.

    Raises:
        RunError: it is waiting or at work.
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
