"""The commands that look after runs, as a user would call them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dpo_hub.errors import ModelError
from dpo_hub.runs.progress import Log
from dpo_hub.runs.run import all_runs

from ..conftest import PATIENCE, until
from .command import assert_one_clear_line, dpo_hub

LONG = ("--epochs", "50", "--batch-size", "4")


def test_a_detached_run_is_looked_after(few_pairs: Path) -> None:
    """Started without waiting, told of, stopped, taken up again, and removed."""
    started = dpo_hub("train", few_pairs, "--detach", *LONG)
    assert started.returncode == 0, started.stderr
    (run,) = all_runs()
    assert f"Started {run.id}." in started.stdout
    assert f"dpo-hub stop {run.id}" in started.stdout
    until(lambda: run.last_metrics.get("step", 0) >= 2)

    told = dpo_hub("status").stdout
    assert f"{run.id}: Training" in told
    assert "of 400: loss" in told
    assert "running" in dpo_hub("runs").stdout
    assert json.loads(dpo_hub("status", "--json").stdout)["status"] == "running"
    assert_one_clear_line(dpo_hub("resume", run.id), "already running")
    assert_one_clear_line(dpo_hub("remove", run.id, "--yes"), "Stop it first")

    stopped = dpo_hub("stop").stdout
    assert f"{run.id}: Stopped after step" in stopped
    assert f"Go on from there:  dpo-hub resume {run.id}" in stopped
    assert "is stopped already" in dpo_hub("stop").stdout
    done = run.last_metrics["step"]

    dpo_hub("resume", "--detach")
    until(lambda: run.last_metrics.get("step", 0) > done)
    dpo_hub("stop")
    assert f"going on from step {int(done)}" in dpo_hub("logs").stdout
    assert "is gone" in dpo_hub("remove", "last", "--yes").stdout
    assert "No run was made yet" in dpo_hub("runs").stdout


def test_ctrl_c_stops_the_run_that_is_followed(few_pairs: Path) -> None:
    """The run is stopped with a checkpoint, the command says so, and exits as interrupted programs do."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, a shell's children begin without
    command = [sys.executable, "-m", "dpo_hub", "train", str(few_pairs), *LONG]
    following = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: bool(all_runs()) and all_runs()[0].last_metrics.get("step", 0) >= 2)
    following.send_signal(signal.SIGINT)
    out, error = following.communicate(timeout=PATIENCE)
    assert following.returncode == 130, error
    (run,) = all_runs()
    assert run.state.status == "stopped"
    assert f"{run.id}: Stopped after step" in out
    assert error.strip() == "Stopping …"


def test_a_followed_log_ends_with_the_run(few_pairs: Path, tmp_path: Path) -> None:
    """It prints what is there, what comes, and the end."""
    base = tmp_path / "no-model"
    base.mkdir()
    dpo_hub("train", few_pairs, "--detach", "--model", base)
    printed = dpo_hub("logs", "-f").stdout
    assert "failed: The folder" in printed
    assert "dpo-hub resume" in dpo_hub("status").stdout


def test_a_growing_log_is_read_by_whole_lines(tmp_path: Path) -> None:
    """Half a line waits for its end; a reader that begins at the end tells nothing old."""
    path = tmp_path / "log.txt"
    log = Log(path)
    assert log.news() == ""
    path.write_text("one\ntw")
    late = Log(path, from_end=True)
    assert log.news() == "one\n"
    with path.open("a") as file:
        file.write("o\nthree\n")
    assert log.news() == "two\nthree\n"
    assert late.news() == "o\nthree\n"


def test_four_bits_need_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the message says so and what to leave out."""
    from dpo_hub.training.policy import load_base

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ModelError, match="needs a CUDA device"):
        load_base("demo", load_in_4bit=True)


@pytest.mark.full
def test_settings_of_accelerate_lie_in_the_run(few_pairs: Path, tmp_path: Path) -> None:
    """They are kept with the run, so that resuming takes the same."""
    settings = tmp_path / "accelerate.yaml"
    settings.write_text("num_processes: 3\ndistributed_type: MULTI_GPU\n")
    result = dpo_hub("train", few_pairs, "--batch-size", "8", "--accelerate", settings)
    (run,) = all_runs()
    assert (run.path / "accelerate.yaml").read_text() == settings.read_text()
    assert_one_clear_line(result, "3 devices cannot share batches of 8 pairs")
