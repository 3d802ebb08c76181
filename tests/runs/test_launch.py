"""Real processes: detached, told of at once, and gone when they are stopped."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.errors import RunError
from dpo_hub.runs.launch import STOP_TIMEOUT, enable_options, remove, start, stop
from dpo_hub.runs.queue import waiting_runs
from dpo_hub.runs.run import all_runs
from dpo_hub.runs.state import Process, State

from ..conftest import PATIENCE, until


@pytest.fixture
def hopeless(few_pairs: Path, tmp_path: Path) -> Run:
    """A queued run whose base model cannot be loaded, so that its worker ends soon and by itself."""
    nowhere = tmp_path / "no-model"
    nowhere.mkdir()
    return Run.create(read_preferences(few_pairs), Recipe.for_model(str(nowhere)))


@pytest.fixture
def long(few_pairs: Path) -> Run:
    """A queued run of many steps."""
    return Run.create(read_preferences(few_pairs), Recipe.for_model(epochs=50, batch_size=4))


def test_a_started_run_ends_with_its_reason(hopeless: Run) -> None:
    """The run is in a process's hands as soon as it is started, and the worker leaves the reason when it fails."""
    start(hopeless)
    assert hopeless.state.status == "queued"
    assert hopeless.state.keeper is not None
    until(lambda: hopeless.state.ended)
    assert hopeless.state.status == "failed"
    assert "holds no model" in hopeless.state.reason


def test_a_process_that_dies_at_once_reads_as_failed(hopeless: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot even begin leaves no run queued for ever."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    start(hopeless)
    until(lambda: hopeless.state.ended)
    assert hopeless.state.status == "failed"
    assert "nobody saw why" in hopeless.state.reason


def test_a_run_that_somebody_holds_is_not_changed(long: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its recipe is rewritten under its lock, so that a worker never reads it half settled."""
    monkeypatch.setattr("dpo_hub.runs.launch.LOCK_TIMEOUT", 0.1)
    before = long.recipe
    with long.lock, pytest.raises(RunError, match="already running"):
        enable_options(long, activation_checkpointing=True, force=True)
    assert long.recipe == before
    enable_options(long, activation_checkpointing=True, force=True)
    assert (long.recipe.activation_checkpointing, long.recipe.force) == (True, True)


def test_a_run_outlives_who_started_it(long: Run) -> None:
    """The process that started it, and its whole session, may go: the run goes on."""
    code = (
        "import sys; from dpo_hub.runs.run import Run; from dpo_hub.runs.launch import start; "
        "start(Run.open(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(long.path)], check=True, start_new_session=True)
    until(lambda: long.last_metrics.get("step", 0) >= 2)
    stop(long)


def test_a_stopped_run_is_gone_within_seconds_and_can_be_taken_up(long: Run) -> None:
    """Stopping takes at most five seconds, leaves a checkpoint of the last step, and stopping again changes nothing."""
    start(long)
    until(lambda: long.last_metrics.get("step", 0) >= 3)
    worker = long.state.worker
    assert worker is not None
    began = time.monotonic()
    stop(long)
    assert time.monotonic() - began < STOP_TIMEOUT + 1
    assert not worker.alive()
    assert long.state.status == "stopped"
    step = int(long.last_metrics["step"])
    assert (long.path / "checkpoints" / f"checkpoint-{step}").is_dir()
    stop(long)
    assert json.loads((long.path / "state.json").read_text())["status"] == "stopped"

    start(long)
    until(lambda: long.last_metrics.get("step", 0) > step)
    assert long.state.done == step
    assert [line["step"] for line in long.metrics] == list(range(1, len(long.metrics) + 1))
    stop(long)


def test_a_worker_that_does_not_listen_is_ended_by_force(few_pairs: Path) -> None:
    """The run is stopped all the same, and says how."""
    run = Run.create(read_preferences(few_pairs), Recipe.for_model())
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    deaf = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert deaf.stdout is not None
    deaf.stdout.readline()
    run.set_state(State("running", worker=Process.of(deaf.pid)))
    stop(run)
    assert deaf.wait(PATIENCE) == -9
    assert (run.state.status, run.state.reason) == ("stopped", "It did not answer in time and was ended by force.")
    deaf.stdout.close()


def test_a_run_that_waits_can_be_stopped(few_pairs: Path, long: Run) -> None:
    """A second run waits for the first, and is gone from the line when it is stopped."""
    second = Run.create(read_preferences(few_pairs), Recipe.for_model())
    start(long)
    until(lambda: long.state.worker is not None)
    start(second)
    keeper = second.state.keeper
    assert keeper is not None
    until(lambda: waiting_runs() == [second])
    stop(second)
    assert second.state == State("stopped", updated=second.state.updated)
    assert waiting_runs() == []
    until(lambda: not keeper.alive())
    stop(long)


@pytest.mark.full
def test_several_runs_go_one_after_the_other_whatever_becomes_of_one(few_pairs: Path, long: Run) -> None:
    """One of them is stopped and one removed before its turn, and one is killed; the next works all the same."""
    preferences, short = read_preferences(few_pairs), Recipe.for_model(epochs=1, batch_size=8)
    first, stopped, removed, last = (Run.create(preferences, short) for _ in range(4))
    start(first, stopped, removed, long, last)
    until(lambda: waiting_runs() == [stopped, removed, long, last])
    assert [run.state.status for run in (stopped, removed, last)] == ["queued"] * 3
    for run in (stopped, removed):
        stop(run)
    remove(removed)
    until(lambda: long.last_metrics.get("step", 0) >= 1)
    worker = long.state.worker
    assert worker is not None
    psutil.Process(worker.pid).kill()
    until(lambda: last.state.ended)
    assert [run.state.status for run in (first, stopped, long, last)] == ["finished", "stopped", "failed", "finished"]
    assert "SIGKILL" in long.state.reason
    assert not stopped.metrics
    for run, said in ((first, "finished: "), (long, "SIGKILL"), (last, "finished: ")):
        assert run.log.read_text().count(said) == 1


@pytest.mark.full
def test_a_forced_stop_leaves_the_next_run_in_peace(few_pairs: Path, long: Run) -> None:
    """A worker that hangs is ended with all that helps it, and the next run of the same keeper works."""
    last = Run.create(read_preferences(few_pairs), Recipe.for_model(epochs=1, batch_size=8))
    start(long, last)
    until(lambda: long.last_metrics.get("step", 0) >= 1)
    worker = long.state.worker
    assert worker is not None
    psutil.Process(worker.pid).suspend()
    stop(long, patience=0.1)
    assert not worker.alive()
    until(lambda: last.state.ended)
    assert [run.state.status for run in (long, last)] == ["stopped", "finished"]


def test_a_run_that_is_stopped_as_it_starts_never_works(few_pairs: Path) -> None:
    """Its worker, which is still loading, finds that it is not wanted any more."""
    run = Run.create(read_preferences(few_pairs), Recipe.for_model())
    keeper = start(run)
    until(lambda: run.state.status == "running")
    assert run.state.worker is None
    stop(run)
    assert keeper.wait(PATIENCE) == 0
    assert run.state.status == "stopped"
    assert not run.metrics


def test_a_run_is_started_by_one_only(long: Run) -> None:
    """A run that waits or is at work is refused, and so is one that has finished."""
    start(long)
    with pytest.raises(RunError, match="queued already"):
        start(long)
    with pytest.raises(RunError, match="Stop it first"):
        remove(long)
    stop(long)
    long.set_state(State("finished"))
    with pytest.raises(RunError, match="has finished"):
        start(long)


def test_a_killed_worker_is_told_with_the_signal(long: Run) -> None:
    """Whoever looks next reads what killed it."""
    start(long)
    until(lambda: long.state.worker is not None)
    worker = long.state.worker
    assert worker is not None
    psutil.Process(worker.pid).kill()
    until(lambda: long.state.ended)
    assert long.state.status == "failed"
    assert "SIGKILL" in long.state.reason
    assert "SIGKILL" in long.log.read_text()


def test_a_run_may_be_taken_up_by_itself(long: Run) -> None:
    """With `keep_going` a killed worker is followed by another, from the last checkpoint, so many times."""
    start(long, keep_going=1)
    workers = set()
    for _ in range(2):
        until(lambda: (worker := long.state.worker) is not None and worker not in workers)
        worker = long.state.worker
        assert worker is not None
        workers.add(worker)
        psutil.Process(worker.pid).kill()
    until(lambda: long.state.ended)
    assert long.state.status == "failed"
    assert "Taking the run up again" in long.log.read_text()


def test_a_removed_run_is_gone(hopeless: Run) -> None:
    """The folder goes, and nothing of it is listed."""
    remove(hopeless)
    assert not hopeless.path.exists()
    assert all_runs() == []
