from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.runs.progress import LONG, duration, progress
from dpo_hub.runs.state import HEARTBEAT_TIMEOUT, Process, State


@pytest.fixture
def run(few_pairs: Path) -> Run:
    return Run.create(read_preferences(few_pairs), Recipe.for_model())


def _steps(run: Run, first: int, last: int, *, ago: float = 0.0) -> None:
    """Log steps, the last of them so many seconds *ago*."""
    for step in range(first, last + 1):
        run.append_metrics({"step": step})
    os.utime(run.path / "metrics.jsonl", (time.time() - ago,) * 2)


def test_the_time_left_goes_by_what_this_worker_did(run: Run) -> None:
    """Steps that an earlier worker did took none of this one's time."""
    run.claim(steps=10, done=2)
    run.beat()
    _steps(run, 1, 4)
    began = run.state.updated
    os.utime(run.path / "metrics.jsonl", (began + 60, began + 60))
    goes = progress(run)
    assert goes.seconds_left == pytest.approx(180)
    assert (goes.step, goes.steps, goes.sentence) == (4, 10, "Training, about 3 min left.")


def test_a_worker_that_may_hang_is_told(run: Run) -> None:
    """A process without a sign of life, and one that lives and has done no step for long, are told apart."""
    run.claim(steps=10)
    run.beat()
    _steps(run, 1, 4, ago=LONG * 2)
    state = run.written_state
    run.write("state.json", (run.path / "state.json").read_text().replace(str(state.updated), str(time.time() - 3600)))
    os.utime(run.path / "metrics.jsonl", (time.time() - LONG * 40,) * 2)
    assert "the last step was" in progress(run).sentence
    os.utime(run.path / ".heartbeat", (time.time() - HEARTBEAT_TIMEOUT * 2,) * 2)
    assert progress(run).sentence == "No sign of life for 2 min: its process may hang."


def test_how_a_run_ended_is_told_with_its_step_and_reason(run: Run) -> None:
    """Stopped and failed runs say where, and why where there is something to say."""
    assert progress(run).sentence == "Queued, and not started yet."
    _steps(run, 1, 3)
    run.set_state(State("stopped"))
    assert progress(run).sentence == "Stopped after step 3."
    run.set_state(State("failed", "No room."))
    assert progress(run).sentence == "Failed after step 3. No room."


def test_a_worker_elsewhere_goes_by_its_heartbeat(run: Run) -> None:
    """A run at work on another machine reads as running as long as its heart beats."""
    run.set_state(State("running", worker=replace(Process.of(), host="elsewhere")))
    run.beat()
    assert progress(run).status == "running"
    os.utime(run.path / ".heartbeat", (time.time() - HEARTBEAT_TIMEOUT * 2,) * 2)
    assert progress(run).status == "failed"


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (42, "42 s"), (600, "10 min"), (7500, "2 h 5 min")])
def test_durations_in_words(seconds: float, words: str) -> None:
    """A duration is rounded to what matters."""
    assert duration(seconds) == words


def test_a_thousand_runs_are_listed(run: Run) -> None:
    """Each with where it stands, by a process that loads no torch."""
    for number in range(1000):
        copy = run.path.with_name(f"{run.id}-{number}")
        copy.mkdir()
        for file in run.path.iterdir():
            os.link(file, copy / file.name)
    code = "import sys; from dpo_hub.cli import main; sys.argv[1:] = ['runs', '--all']; main()"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert listed.count("Queued, and not started yet.") == 1001
