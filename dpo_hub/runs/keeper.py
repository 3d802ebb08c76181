"""The small process that supervises runs, one by one: waits for the device, starts the worker, records how it died.

    python -m dpo_hub.runs.keeper TIMES RUN_FOLDER [RUN_FOLDER ...]

The worker holds the run's lock and the device, so nothing is lost if the keeper dies. Does not import torch.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from ..errors import BusyError, RecipeError
from ..recipe import Recipe
from .heartbeat import heartbeat
from .queue import join, wait_for_turn
from .run import Run
from .state import Process

log = logging.getLogger("dpo_hub.runs.keeper")  # not __main__, the name under which it runs

WORKER = "dpo_hub.jobs.worker"
AT_THE_END = ("scipy.stats", "matplotlib.backends.backend_agg")
"""Slow imports that a worker needs only at its end."""
Work = Callable[[Run], int]
"""A function that runs a worker process for a run, and returns its exit code, negative for a signal."""

KILLS = (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events"))
"""Where Linux counts processes killed for lack of memory: those of the whole machine, and those of a container."""
BY_A_FAULT = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}


def supervise(run: Run, keep_going: int, work: Work) -> None:
    """Supervise *run* until it has ended, and resume it up to *keep_going* times if its worker dies."""
    own = Process.of()
    for left in range(keep_going, -1, -1):
        try:
            wait_for_turn(run)
        except KeyboardInterrupt:
            run.end("stopped")
            return
        run.set_state(replace(run.written_state, status="running"))
        killed_before = out_of_memory_kills()
        code = work(run)
        state = run.written_state
        if code == BusyError.exit_code or state.keeper not in (own, None):
            return  # another process has taken it over
        if run.stop_asked.exists() or code == -signal.SIGTERM:
            if not state.ended:
                run.end("stopped")
            return
        if state.ended and state.expected:
            return
        died = state.reason or how_it_died(code, for_memory=out_of_memory_kills() > killed_before, last=run.log_tail(1))
        log.error("%s%s", died, f" Taking the run up again; {left - 1} more times at most." if left else "")
        if left:
            run.set_state(replace(state, status="queued", reason="", worker=None, keeper=own))
        else:
            run.end("failed", died, expected=False)


def in_new_process(run: Run) -> int:
    """Run the worker for *run* in a newly started process."""
    return subprocess.run(command(run), stdin=subprocess.DEVNULL, check=False).returncode


def in_forked_processes() -> Work:
    """Fork each worker from a process that has already imported all libraries, which saves it seconds."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([WORKER, *AT_THE_END])

    def work(run: Run) -> int:
        worker = server.Process(target=_forked, args=(run,))
        worker.start()
        worker.join()
        assert worker.exitcode is not None
        return worker.exitcode

    return work


def _forked(run: Run) -> None:
    _redirect_to_log(run)
    import_module(WORKER).main([str(run.path)])


def _redirect_to_log(run: Run) -> None:
    """Redirect all output of this process to the log of *run*."""
    with run.log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())


def command(run: Run) -> list[str]:
    """Return the command that starts the worker, with `accelerate launch` if it has settings or several devices."""
    worker = ["-m", WORKER, str(run.path)]
    devices, settings = sharing(run.recipe, visible_devices()), run.path / "accelerate.yaml"
    if settings.is_file():
        how = ["--config_file", str(settings)]
    elif devices > 1:
        how = ["--multi_gpu", f"--num_processes={devices}", "--num_machines=1", "--mixed_precision=no"]
        how += ["--dynamo_backend=no"]
    else:
        return [sys.executable, *worker]
    return [sys.executable, "-m", "accelerate.commands.launch", *how, *worker]


def sharing(recipe: Recipe, devices: int) -> int:
    """Return how many of the *devices* can share the recipe's batches evenly."""
    for count in range(devices, 1, -1):
        with suppress(RecipeError):
            recipe.per_process(count)
            return count
    return 1


def visible_devices() -> int:
    """Return how many CUDA devices a process sees, determined without torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([device for device in chosen.split(",") if device.strip() not in ("", "-1")])
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    return len(listed.splitlines())


def how_it_died(code: int, *, for_memory: bool, last: str) -> str:
    """Explain in a sentence or two what ended a process that exited with *code*, negative for a signal."""
    said = f" The last line of its log: {last}" if last else ""
    if code >= 0:
        return f"The worker ended with the exit code {code}.{said}"
    number = signal.Signals(-code)
    if number == signal.SIGKILL and for_memory:
        return (
            "The worker was killed as the system ran out of memory. Lower --batch-size (and raise --accumulation) or "
            "--max-length, or close what else needs memory."
        )
    if number == signal.SIGKILL:
        return "The worker was killed (SIGKILL), by somebody or by a limit on memory or time."
    blame = "a fault in a library" if number in BY_A_FAULT else "a signal"
    return f"The worker was ended by {blame} ({number.name}).{said}"


def out_of_memory_kills(sources: Iterable[Path] = KILLS) -> int:
    """Return how many processes the system has killed for lack of memory since boot; only Linux reports this."""
    total = 0
    for source in sources:
        with suppress(OSError):
            fields = (line.split() for line in source.read_text().splitlines())
            total += sum(int(count) for name, count in fields if name == "oom_kill")
    return total


def main() -> None:
    """Supervise the runs with the given folders, one after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("keep_going", type=int)
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    own, runs = Process.of(), [Run(path) for path in given.runs]
    for run in runs:
        with run.lock:
            pass  # the process that started this one writes the state first
        join(run)
    forks = len(runs) > 1 and sys.platform == "linux" and not visible_devices()
    work = in_forked_processes() if forks else in_new_process
    with heartbeat(*runs):
        for run in runs:
            with suppress(FileNotFoundError):  # the run was removed
                if run.written_state.keeper == own:  # it was not stopped or taken over in the meantime
                    _redirect_to_log(run)
                    supervise(run, given.keep_going, work)


if __name__ == "__main__":
    main()
