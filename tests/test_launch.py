"""A real worker process: detached, told of at once, and gone when it is stopped."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.errors import RunError
from dpo_hub.launch import start, stop

PATIENCE = 120.0
"""Seconds to wait for a worker. A few are enough, unless the machine is busy with other things."""


@pytest.fixture
def queued(few_pairs: Path, tmp_path: Path) -> Run:
    """A queued run whose base model cannot be loaded, so that its worker ends soon and by itself."""
    nowhere = tmp_path / "no-model"
    nowhere.mkdir()
    return Run.create(read_preferences(few_pairs), Recipe.for_model(str(nowhere)))


def _wait_for_end_of(run: Run) -> None:
    with suppress(psutil.NoSuchProcess):
        psutil.Process(run.state.pid).wait(PATIENCE)


def test_a_started_run_is_running_and_ends_with_its_reason(queued: Run) -> None:
    """The run is running as soon as it is started, and the worker leaves the reason when it fails."""
    start(queued)
    started = queued.state
    assert started.status == "running"
    assert psutil.Process(started.pid).create_time() == started.pid_created
    _wait_for_end_of(queued)
    assert queued.state.status == "failed"
    assert "holds no model" in queued.state.reason


def test_a_worker_that_dies_at_once_reads_as_failed(queued: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that cannot even be imported leaves no run queued for ever, and its last words are the reason."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    start(queued)
    _wait_for_end_of(queued)
    assert queued.state.status == "failed"
    assert "ended early" in queued.state.reason


def test_a_stopped_worker_is_gone_and_the_run_says_so(queued: Run) -> None:
    """Stopping waits for the worker's end, also of one that was still loading; stopping again changes nothing."""
    start(queued)
    pid = queued.state.pid
    stop(queued)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert queued.state.status == "stopped"
    stop(queued)
    assert json.loads((queued.path / "state.json").read_text())["status"] == "stopped"


def test_a_run_starts_only_once(queued: Run) -> None:
    """A run that is at work or has ended is refused."""
    start(queued)
    with pytest.raises(RunError, match="only a queued run"):
        start(queued)
    stop(queued)
