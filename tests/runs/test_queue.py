"""Real processes in line for the device."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.errors import RunError
from dpo_hub.runs.queue import holding_device, require_free_device, waiting_runs
from dpo_hub.runs.state import Process, State

WAITER = """
import sys
from pathlib import Path
from dpo_hub.runs.run import Run
from dpo_hub.runs.state import Process, State
from dpo_hub.runs.queue import holding_device
run = Run(Path(sys.argv[1]))
run.set_state(State("queued", worker=Process.of()))
print("waiting", flush=True)
with holding_device(run):
    run.claim()
    print("at work", flush=True)
    sys.stdin.readline()
    run.set_state(State("finished"))
"""

Waiter = subprocess.Popen[str]


@pytest.fixture
def wait(few_pairs: Path) -> Iterator[Callable[[], tuple[Run, Waiter]]]:
    """Return a function that puts a new run in line, in a process of its own; it works until it is told to end."""
    waiters: list[Waiter] = []
    preferences = read_preferences(few_pairs)

    def begin() -> tuple[Run, Waiter]:
        run = Run.create(preferences, Recipe.for_model())
        piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        waiter = subprocess.Popen([sys.executable, "-c", WAITER, str(run.path)], text=True, **piped)  # type: ignore[call-overload]
        waiters.append(waiter)
        assert waiter.stdout.readline() == "waiting\n"
        while run not in [*waiting_runs()] and run.written_state.status == "queued":
            pass
        return run, waiter

    yield begin
    for waiter in waiters:
        waiter.kill()
        waiter.communicate()


def _says(waiter: Waiter) -> str:
    assert waiter.stdout is not None
    return waiter.stdout.readline().strip()


def test_the_first_to_come_is_the_first_to_work(wait: Callable[[], tuple[Run, Waiter]]) -> None:
    """One at a time has the device, in the order of their coming, and a dead one in the line holds nobody up."""
    first, second, third, fourth = (wait() for _ in range(4))
    assert _says(first[1]) == "at work"
    assert waiting_runs() == [second[0], third[0], fourth[0]]
    third[1].kill()
    third[1].wait()
    assert waiting_runs() == [second[0], fourth[0]]
    first[1].communicate("\n")
    assert _says(second[1]) == "at work"
    assert waiting_runs() == [fourth[0]]
    second[1].communicate("\n")
    assert _says(fourth[1]) == "at work"


def test_the_device_of_a_killed_run_is_free(wait: Callable[[], tuple[Run, Waiter]]) -> None:
    """The system takes the lock back, and the next in line goes on."""
    first, second = wait(), wait()
    assert _says(first[1]) == "at work"
    first[1].kill()
    assert _says(second[1]) == "at work"
    assert waiting_runs() == []


def test_a_free_device_is_had_at_once(few_pairs: Path) -> None:
    """Without others nobody waits, and the ticket is given back, also where the work fails."""
    run = Run.create(read_preferences(few_pairs), Recipe.for_model())
    run.set_state(State("queued", worker=Process.of()))
    with pytest.raises(ZeroDivisionError), holding_device(run):
        _ = 1 / len(waiting_runs())
    with holding_device(run):
        assert waiting_runs() == []


def test_a_chat_makes_way_for_training(few_pairs: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On a GPU that a run trains on there is no chat, unless it is wanted; on a CPU there is a warning."""
    run = Run.create(read_preferences(few_pairs), Recipe.for_model())
    require_free_device("cuda")
    run.set_state(State("running", worker=Process.of()))
    with holding_device(run), caplog.at_level(logging.WARNING):
        with pytest.raises(RunError, match=f"{run.id} trains on this machine's GPU"):
            require_free_device("cuda")
        assert not caplog.records
        require_free_device("cuda", beside=True)
        require_free_device("cpu")
    assert len(caplog.records) == 2
