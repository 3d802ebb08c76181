from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dpo_hub.run import Run, all_runs
from tests.conftest import WriteCsv

DpoHub = Callable[..., subprocess.CompletedProcess[str]]
COLUMNS = ("prompt", "chosen", "rejected")


def dpo_hub(*arguments: object, limit_file_size: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run the real command line as a process of its own, offline."""

    def limit() -> None:
        if limit_file_size:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_file_size, limit_file_size))

    return subprocess.run(
        [sys.executable, "-m", "dpo_hub", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "100"},
        preexec_fn=limit,
    )


def assert_one_clear_line(result: subprocess.CompletedProcess[str], told: str) -> None:
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("dpo-hub: ")
    assert told in line


def test_help_loads_no_torch() -> None:
    """The list of commands is there without any of the heavy packages."""
    code = "import sys; sys.argv[1:] = ['--help']; from dpo_hub.cli import cli; cli(standalone_mode=False); "
    code += "assert not {'torch', 'transformers', 'gradio'} & set(sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in ("train", "chat", "demo", "publish", "app"):
        assert command in result.stdout


def test_train_has_an_option_for_each_setting() -> None:
    """The recipe's fields are the options of `train`, with their help."""
    shown = dpo_hub("train", "--help").stdout
    for option in ("--beta", "--epochs", "--lora-r", "--learning-rate", "--sft-weight", "--held-out"):
        assert option in shown


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("question", "good", "bad"), ("a", "b", "c")], "no column prompt"),
        ([COLUMNS], "has no rows"),
        ([], "is empty"),
        ([COLUMNS, ("a", "b", "c")], "at least two prompts are needed"),
    ],
)
def test_a_bad_file_is_one_clear_line(write_csv: WriteCsv, rows: list[tuple[str, ...]], told: str) -> None:
    """What is wrong with a file is said in a line, and no run is made of it."""
    assert_one_clear_line(dpo_hub("train", write_csv(rows)), told)
    assert all_runs() == []


def test_a_missing_file_and_a_bad_setting(few_pairs: Path, tmp_path: Path) -> None:
    """Neither a wrong name nor a wrong number makes a run."""
    assert_one_clear_line(dpo_hub("train", tmp_path / "none.csv"), "There is no file")
    assert_one_clear_line(dpo_hub("train", few_pairs, "--beta", "-1"), "beta is -1.0; it must lie between")
    assert all_runs() == []


def test_a_model_that_is_not_there(few_pairs: Path) -> None:
    """A base model that cannot be loaded is one line, and its run says that it failed."""
    assert_one_clear_line(dpo_hub("train", few_pairs, "--model", "no/such-model"), "no/such-model cannot be loaded")
    (run,) = all_runs()
    assert run.state.status == "failed"
    assert "no/such-model" in run.state.reason


def test_a_full_disk(few_pairs: Path) -> None:
    """Where there is no room for the adapter, the run has failed and nothing passes for finished."""
    assert_one_clear_line(dpo_hub("train", few_pairs, limit_file_size=1_000_000), "No room to write")
    (run,) = all_runs()
    assert run.state.status == "failed"
    assert not run.adapter.exists()
    assert_one_clear_line(dpo_hub("chat", "last", "hello"), "is failed, not finished")


def test_train_then_chat(few_pairs: Path) -> None:
    """A file goes in, a run folder with everything in it comes out, and both sides answer."""
    trained = dpo_hub("train", few_pairs, "--epochs", "2", "--beta", "0.2")
    assert trained.returncode == 0, trained.stderr
    assert "40 pairs, read as prompt, chosen, rejected; every row was used." in trained.stdout
    assert "Held-out reward accuracy" in trained.stdout
    run = Run.open("last")
    assert run.recipe.beta == 0.2
    assert run.state.status == "finished"
    assert {path.name for path in run.path.iterdir()} >= {
        "recipe.json", "preferences.parquet", "report.json", "state.json", "metrics.jsonl", "log.txt", "adapter",
        "evaluation.json", "samples.jsonl", "README.md",
    }  # fmt: skip
    assert len(run.samples) == 4
    chatted = dpo_hub("chat", "last", "Hello!", "--seed", "1")
    assert chatted.returncode == 0, chatted.stderr
    assert "before" in chatted.stdout
    assert "after" in chatted.stdout


def test_the_demo_prints_what_changed() -> None:
    """One application, end to end, meets the bar that the project holds itself to."""
    result = dpo_hub("demo", "tone", "--json")
    assert result.returncode == 0, result.stderr
    (use,) = json.loads(result.stdout)["uses"]
    assert use["name"] == "tone"
    assert 0.3 <= use["before"] <= 0.7
    assert use["after"] >= 0.95
    assert use["well_formed"] >= 0.95
    assert use["reward_accuracy"] >= 0.95
    assert use["seconds"] > 0


def test_an_unknown_use_is_told(home: Path) -> None:
    """A name that is no application is refused with those there are."""
    assert_one_clear_line(dpo_hub("demo", "tonne"), "There is no application 'tonne'. Name one of tone,")
    assert not home.exists()


def test_a_home_that_cannot_be_made(few_pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where runs cannot be kept, the path is named."""
    monkeypatch.setenv("DPO_HUB_HOME", str(few_pairs / "home"))
    assert_one_clear_line(dpo_hub("train", few_pairs), f"{few_pairs}/home")
