"""The small process that sees a run to its end: waits for the device, starts the worker, says how it died.

    python -m dpo_hub.keeper RUN_FOLDER TIMES

The worker holds the run's lock and the device; a keeper that dies takes nothing with it. Loads no torch.
"""

from __future__ import annotations

import argparse
import logging
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

import psutil

from .heartbeat import heartbeat
from .run import Run
from .state import State, Worker
from .turns import wait_for_turn

log = logging.getLogger("dpo_hub.keeper")  # not __main__, as which it runs

SETTLED = (0, 2, 75, 130)
"""Exit codes of a worker that had its reason: finished, a `DPOHubError`, another has the run, stopped."""
BY_A_FAULT = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}


def keep(run: Run, keep_going: int = 0) -> None:
    """See to *run* until it has ended, and take it up again up to *keep_going* times where its worker died."""
    own = Worker.of()
    for left in range(keep_going, -1, -1):
        run.set_state(State("queued", worker=own))
        wait_for_turn(run)
        run.set_state(State("running", worker=own))
        killed_before = out_of_memory_kills()
        worker = subprocess.Popen(command(run), stdin=subprocess.DEVNULL)
        name = Worker.of(worker.pid)
        code = worker.wait()
        if code in SETTLED or run.written_state.worker not in (own, name, None):
            return
        _tell_end(run, code, for_memory=out_of_memory_kills() > killed_before)
        if run.written_state.status == "stopped":
            return
        if left:
            log.warning("taking the run up again; %d more times at most", left - 1)


def command(run: Run) -> list[str]:
    """What starts the worker."""
    return [sys.executable, "-m", "dpo_hub.training.worker", str(run.path)]


def _tell_end(run: Run, code: int, *, for_memory: bool) -> None:
    """Write how the worker died, unless the state says already how the run ended."""
    if run.written_state.ended:
        return
    status = "stopped" if code == -signal.SIGTERM else "failed"
    reason = how_it_died(code, for_memory=for_memory, last=run.log_tail(1))
    run.set_state(State(status, reason))
    log.error("%s", reason)


def how_it_died(code: int, *, for_memory: bool, last: str) -> str:
    """Say in a sentence or two what ended a process that exited with *code*, negative for a signal."""
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
    if number == signal.SIGTERM:
        return "The worker was told to stop (SIGTERM) before its first step."
    blame = "a fault in a library" if number in BY_A_FAULT else "a signal"
    return f"The worker was ended by {blame} ({number.name}).{said}"


def out_of_memory_kills() -> int:
    """How many processes the system has killed for memory since its boot, as far as it tells: Linux does."""
    total = 0
    for source in (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events")):
        with suppress(OSError):
            fields = (line.split() for line in source.read_text().splitlines())
            total += sum(int(count) for name, count in fields if name == "oom_kill")
    return total


def main() -> None:
    """Keep the run whose folder is given. A SIGTERM stops it, the worker too if there is one by then."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for child in psutil.Process().children():
            child.terminate()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("keep_going", type=int)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    run = Run(given.run)
    with run.lock:
        pass  # whoever started this process writes the state first
    try:
        with heartbeat(run):
            keep(run, given.keep_going)
    except KeyboardInterrupt:
        if run.written_state.worker == Worker.of():
            run.set_state(State("stopped"))
        sys.exit(130)


if __name__ == "__main__":
    main()
