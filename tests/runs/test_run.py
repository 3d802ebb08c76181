from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from dpo_hub.errors import DiskFullError, RunError, explaining_disk_full
from dpo_hub.preferences import read_preferences
from dpo_hub.preferences.doctor import examine
from dpo_hub.preferences.pairs import SHOWN_ROWS
from dpo_hub.recipe import Recipe
from dpo_hub.runs.run import Run, all_runs
from dpo_hub.runs.state import Process, State


@pytest.fixture
def run(few_pairs: Path) -> Run:
    return Run.create(read_preferences(few_pairs), Recipe.for_model(beta=0.25))


def test_a_new_run_is_complete_and_queued(run: Run, home: Path) -> None:
    """Recipe, pairs and report are all there, with every row on one side of the split."""
    assert run.path.parent == home / "runs"
    assert run.recipe.beta == 0.25
    assert run.state.status == "queued"
    train, held_out = run.pairs("train"), run.pairs("held_out")
    assert sorted(pair.row for pair in train + held_out) == list(range(2, 42))
    assert (run.report["train"], run.report["held_out"]) == (len(train), len(held_out)) == (32, 8)


def test_pairs_come_back_as_they_were(run: Run, few_pairs: Path) -> None:
    """What is trained on is what was read."""
    read = {pair.row: pair.messages for pair in read_preferences(few_pairs).pairs}
    assert {pair.row: pair.messages for pair in run.pairs("train") + run.pairs("held_out")} == read


def test_the_report_has_what_the_doctor_found(run: Run, few_pairs: Path) -> None:
    """Findings are kept as `check` tells them, each with few of its rows."""
    found, told = examine(read_preferences(few_pairs)), run.report["findings"]
    assert [finding.kind for finding in found] == [finding["kind"] for finding in told]
    assert asdict(found[0]) | {"rows": []} == told[0] == told[0] | {"kind": "few-pairs"}
    assert max(len(finding["rows"]) for finding in told) == SHOWN_ROWS


def test_a_file_whose_name_is_no_text(few_pairs: Path) -> None:
    """Half characters, as a name in another encoding has, become question marks and stop nothing."""
    odd = few_pairs.rename(few_pairs.with_name("f\udce9w.csv"))
    assert Run.create(read_preferences(odd), Recipe()).report["source"] == "f?w.csv"


def test_runs_are_found_by_id_beginning_last_and_folder(run: Run, few_pairs: Path) -> None:
    """Any of the ways people name a run opens it."""
    assert Run.open(run.id) == Run.open(run.id[:-2]) == Run.open("last") == Run.open(run.path) == run
    second = Run.create(read_preferences(few_pairs), Recipe())
    assert all_runs() == [second, run]
    with pytest.raises(RunError, match="Several runs begin with few"):
        Run.open("few")
    with pytest.raises(RunError, match="There is no run other"):
        Run.open("other")


def test_without_runs_the_message_says_how_to_start() -> None:
    """An empty home is told as such."""
    with pytest.raises(RunError, match="dpo-hub train"):
        Run.open("last")


def test_a_run_whose_worker_is_gone_has_failed(run: Run) -> None:
    """A worker that died is never taken for one at work, not even when its number is used again."""
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run.set_state(State("running", worker=Process.of(worker.pid)))
    assert run.state.status == "running"
    worker.communicate(b"\n")
    run.log.write_text("loading\nsomething broke\n")
    assert run.state.status == "failed"
    assert "something broke" in run.state.reason


def test_only_finished_runs_are_used(run: Run) -> None:
    """A run that is not finished is refused with its state."""
    with pytest.raises(RunError, match="is queued, not finished"):
        run.require_finished()
    run.set_state(State("finished"))
    assert run.require_finished() is run


def test_a_line_separator_in_a_reply_ends_no_sample(run: Run) -> None:
    """Samples are read back whatever characters the model wrote."""
    run.write("samples.jsonl", json.dumps({"after": "one\u2028two\x85three"}, ensure_ascii=False) + "\n")
    assert run.samples == [{"after": "one\u2028two\x85three"}]


def test_a_model_folder_is_named_in_full(few_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base model from a relative folder is the same one from any working directory."""
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    run = Run.create(read_preferences(few_pairs), Recipe.for_model("models"))
    assert run.recipe.model == str(tmp_path / "models")


def test_half_a_line_of_metrics_is_not_read(run: Run) -> None:
    """A reader beside the writer sees whole lines only."""
    run.append_metrics({"step": 1})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2')
    assert run.metrics == [{"step": 1}]


def test_the_last_metrics_are_read_without_the_others(run: Run) -> None:
    """Whole lines count, also the first, and a run without any has none."""
    assert run.last_metrics == {}
    for step in range(1, 200):
        run.append_metrics({"step": step, "loss": 0.123456789, "margin": 1.0})
        assert run.last_metrics["step"] == step
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2')
    assert run.last_metrics["step"] == 199


def test_metrics_are_rewound_to_a_step(run: Run) -> None:
    """What a resumed worker measures again is forgotten first."""
    for step in (1, 2, 3):
        run.append_metrics({"step": step})
    run.rewind(2)
    assert run.metrics == [{"step": 1}, {"step": 2}]


def test_what_an_interrupted_write_left_is_tidied(run: Run) -> None:
    """Files and folders that were being written go; the run's own stay."""
    (run.path / ".recipe.json.ab12.aside").write_text("{")
    (run.path / ".adapter.aside").mkdir()
    run.tidy()
    assert sorted(path.name for path in run.path.iterdir()) == [
        "preferences.parquet",
        "recipe.json",
        "report.json",
        "state.json",
    ]


def test_what_is_no_number_is_written_as_null(run: Run) -> None:
    """The lines are JSON for any reader, and come back here as they were."""
    run.append_metrics({"step": 1, "loss": math.nan, "margin": math.inf})
    run.append_evaluation({"step": 1, "loss": math.nan, "replies": [{"prompt": "é", "reply": ""}]})
    assert json.loads((run.path / "metrics.jsonl").read_text()) == {"step": 1, "loss": None, "margin": None}
    [line], [point] = run.metrics, run.evaluations
    assert math.isnan(line["loss"])
    assert math.isnan(point["loss"])
    assert point["replies"] == [{"prompt": "é", "reply": ""}]


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("I/O error: (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    ],
)
def test_no_room_is_told_with_what_to_do(error: Exception) -> None:
    """A full disk is one sentence, whichever library met it."""
    with pytest.raises(DiskFullError, match="Free some space"), explaining_disk_full("here"):
        raise error


def test_other_errors_pass() -> None:
    """Only a full disk is translated."""
    with pytest.raises(PermissionError), explaining_disk_full("here"):
        raise PermissionError(13, "Permission denied")
