"""A grid of recipes becomes ordinary runs, and their frontier is told and drawn."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dpo_hub.cli import cli
from dpo_hub.comparison.frontier import Point
from dpo_hub.comparison.frontier_picture import draw_frontier
from dpo_hub.jobs.worker import work
from dpo_hub.preferences import read_preferences
from dpo_hub.runs.run import Run, all_runs

from ..conftest import until
from .command import dpo_hub


def test_a_sweep_trains_the_grid_and_measures_the_reference_once(few_pairs: Path, home: Path) -> None:
    """What the base model says of the pairs is measured by the first run alone; table and picture are left."""
    short = ("--epochs", "1", "--batch-size", "8", "--evaluations", "1")
    swept = dpo_hub("sweep", few_pairs, "--learning-rate", "0.004,0.002", "--loss", "sigmoid", *short, "--json")
    assert swept.returncode == 0, swept.stderr
    runs = all_runs()[::-1]
    assert [run.recipe.learning_rate for run in runs] == [0.004, 0.002]
    assert [run.state.status for run in runs] == ["finished", "finished"]
    assert len([*(home / "cache" / "reference").iterdir()]) == 1
    assert sum("measuring what the base model says" in run.log.read_text(encoding="utf-8") for run in runs) == 1
    told = json.loads(swept.stdout)
    assert [one["run"] for one in told["runs"]] == [run.id for run in runs]
    (folder,) = (home / "sweeps").iterdir()
    assert (folder / "frontier.png").read_bytes().startswith(b"\x89PNG")
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == [run.id for run in runs]
    _frontier([run.id for run in runs], folder.parent / "again.png")
    alone = work(Run.create(read_preferences(few_pairs), runs[1].recipe))
    adapters = [(run.adapter / "adapter_model.safetensors").read_bytes() for run in (alone, runs[1])]
    assert adapters[0] == adapters[1], "a run of a sweep is to be as any other"


@pytest.mark.full
def test_ctrl_c_stops_a_sweep(few_pairs: Path) -> None:
    """The run at work keeps its last step, those that wait never begin, and it says how to go on."""
    command = [sys.executable, "-m", "dpo_hub", "sweep", str(few_pairs), "--beta", "0.1,0.2", "--epochs", "50"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as sweep:
        until(lambda: any(run.last_metrics for run in all_runs()))
        sweep.send_signal(signal.SIGINT)
        _, told = sweep.communicate()
    runs = all_runs()[::-1]
    assert sweep.returncode == 130
    assert [run.state.status for run in runs] == ["stopped", "stopped"]
    assert [bool(run.metrics) for run in runs] == [True, False]
    assert [*(runs[0].path / "checkpoints").glob("checkpoint-*")]
    resume = [f"dpo-hub resume {run.id}" for run in runs]
    assert told.splitlines()[-4:] == [
        "Stopped. Go on with:",
        *resume,
        f"dpo-hub frontier {runs[0].id} {runs[1].id}",
    ]


def _frontier(runs: list[str], picture: Path) -> None:
    """The same again of runs that are named; a picture of another kind is refused."""
    told = dpo_hub("frontier", *runs, "--to", picture)
    assert told.returncode == 0, told.stderr
    assert all(run in told.stdout for run in runs)
    assert "on the frontier" in told.stdout
    assert picture.is_file()
    refused = dpo_hub("frontier", *runs, "--to", picture.with_suffix(".pdf"))
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


@pytest.mark.full
def test_a_run_that_fails_does_not_end_the_sweep(few_pairs: Path, tmp_path: Path) -> None:
    """Each that fails is told with its reason; with none left there is nothing to compare."""
    swept = dpo_hub("sweep", few_pairs, "--model", tmp_path, "--beta", "0.1,0.2")
    assert (swept.returncode, swept.stdout) == (2, "")
    assert swept.stderr.count("has failed: The folder") == 2
    assert swept.stderr.splitlines()[-1].startswith("dpo-hub: No run of the sweep has finished")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--beta", "0.1,much"], "--beta has 'much', which is not a number"),
        (["--beta", "0.1,99"], "beta is 99"),
        (["--loss", "sigmoid,none"], "loss is 'none'"),
    ],
)
def test_bad_values_are_refused_before_anything_is_made(few_pairs: Path, words: list[str], why: str) -> None:
    """Option and value are named, and no run was made."""
    refused = CliRunner().invoke(cli, ["sweep", str(few_pairs), *words])
    assert why in str(refused.exception)
    assert not all_runs()


@pytest.mark.parametrize("count", [1, 64])
def test_any_number_of_points_can_be_drawn(count: int, tmp_path: Path) -> None:
    """One point, many losses, equal values, and runs without a KL."""
    points = [Point(f"r{n}", f"loss{n % 9}", 0.1, 0.01 * (n % 7), 1.0, 20, 2.0) for n in range(count)]
    draw_frontier([*points, Point("broken", "ipo", 0.1, float("nan"), 0.5, 20, 0.0)], tmp_path / "frontier.png")
    assert (tmp_path / "frontier.png").stat().st_size > 5_000
