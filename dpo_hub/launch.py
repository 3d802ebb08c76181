"""Start and stop the process that works on a run. It outlives whoever started it: all it shares is the run's folder.

Loads no torch: only the worker process does.
"""

from __future__ import annotations

import subprocess
import sys
import threading

import psutil

from .errors import RunError
from .run import Run, State

STOP_TIMEOUT = 30.0
"""Seconds that a worker gets to say that it was stopped, before it is ended by force."""


def start(run: Run) -> None:
    """Start a detached worker on a queued *run*; what it prints goes to the run's log.

    The run is `running` when this returns. A worker that dies before it says anything itself, at an import for example,
    therefore reads as failed and not as queued for ever.

    Raises:
        RunError: the run is not queued.
    """
    if run.state.status != "queued":
        raise RunError(f"The run {run.id} is {run.state.status}; only a queued run can be started. Make a new one.")
    with run.log.open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "dpo_hub.training.worker", str(run.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    created = psutil.Process(worker.pid).create_time()
    if run.state.status == "queued":
        run.set_state(State("running", pid=worker.pid, pid_created=created))
    # Somebody has to collect its exit status as long as this process lives, or it stays behind as a zombie.
    threading.Thread(target=worker.wait, name=f"reaper of {run.id}", daemon=True).start()


def stop(run: Run) -> None:
    """Ask the worker of *run* to stop and wait until it is gone; a run that has ended already is left as it is."""
    state = run.state
    if state.status != "running":
        return
    try:
        worker = psutil.Process(state.pid)
        worker.terminate()
        _wait(worker)
    except psutil.NoSuchProcess:
        pass
    # A state that the worker wrote at its end names no process. One that does was left by a worker that had no time to.
    if run.state.pid:
        run.set_state(State("stopped", "Stopped before the end."))


def _wait(worker: psutil.Process) -> None:
    try:
        worker.wait(STOP_TIMEOUT)
    except psutil.TimeoutExpired:
        worker.kill()
        worker.wait()
