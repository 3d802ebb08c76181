from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dpo_hub.runs.headline import headline_of
from dpo_hub.runs.run import Run, all_runs

from ..conftest import WriteCsv
from .command import assert_one_clear_line, dpo_hub, dpo_hub_process

COLUMNS = ("prompt", "chosen", "rejected")


def test_help_loads_no_torch() -> None:
    """The list of commands is there without any of the heavy packages."""
    code = "import sys; sys.argv[1:] = ['--help']; from dpo_hub.cli import cli; cli(standalone_mode=False); "
    code += "assert not {'torch', 'transformers', 'gradio'} & set(sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in ("train", "chat", "demo", "publish", "app"):
        assert command in result.stdout


MESSY = """question;response_a;response_b;pref
Where is it?;It arrives tomorrow, promised.;No idea.;a
Where is it, then?;No idea.;On its way!;b
Is it blue?;Yes.;It is.;tie
"""


def test_check_tells_what_a_file_is_and_what_is_wrong(tmp_path: Path) -> None:
    """Layout, mapping, rows left out, first pairs and findings are told, and what to do next."""
    path = tmp_path / "ab.csv"
    path.write_text(MESSY)
    told = dpo_hub_process("check", path).stdout
    assert "2 pairs from 3 rows" in told
    assert "Read as: A/B test; prompt ← `question`, answers ← `response_a, response_b`, winner ← `pref`" in told
    assert "Left out: 1 row, a tie (row 4)" in told
    assert "On its way!" in told
    assert "There are only 2 pairs." in told
    assert f"dpo-hub train {path}" in told


def test_check_as_json(tmp_path: Path) -> None:
    """One object has all of it."""
    path = tmp_path / "ab.csv"
    path.write_text(MESSY)
    report = json.loads(dpo_hub("check", path, "--json").stdout)
    assert report["layout"] == "A/B test"
    assert report["mapping"]["winner"] == "pref"
    assert (report["rows"], report["pairs"], report["left_out"]) == (3, 2, {"a tie": 1})
    assert {"kind", "message", "count", "rows", "advice", "severity"} == report["findings"][0].keys()


def test_a_mapping_says_which_column_is_which(tmp_path: Path) -> None:
    """Where names do not tell, or tell it wrongly, the user does; a name that is not there is one line."""
    path = tmp_path / "ab.csv"
    path.write_text("one,two,three\nWhere?,Here.,No idea.\n")
    assert_one_clear_line(
        dpo_hub("check", path), "Say which is which: --map prompt=COLUMN,chosen=COLUMN,rejected=COLUMN"
    )
    shown = dpo_hub("check", path, "--map", "prompt=one,chosen=two", "--map", "rejected=three", "--json")
    assert json.loads(shown.stdout)["mapping"] == {"prompt": "one", "chosen": "two", "rejected": "three"}
    assert_one_clear_line(dpo_hub("check", path, "--map", "prompt=four"), "the column 'four', which is not there")
    assert_one_clear_line(dpo_hub("check", path, "--map", "prompt"), "is not of the form prompt=COLUMN")


def test_check_with_a_model_sees_what_is_cut(few_pairs: Path) -> None:
    """With a base model, its tokenizer says which replies do not fit."""
    report = json.loads(dpo_hub("check", few_pairs, "--model", "demo", "--max-length", "60", "--json").stdout)
    assert {"replies-cut"} <= {finding["kind"] for finding in report["findings"]}


def test_repair_writes_the_cleaned_file(tmp_path: Path) -> None:
    """The mended file is read again with nothing left to mend, and the changes are listed."""
    path, mended = tmp_path / "ab.csv", tmp_path / "mended.csv"
    path.write_text(MESSY + "Where is it?;It arrives tomorrow, promised.;No idea.;a\n")
    result = dpo_hub("check", path, "--repair", mended)
    assert result.returncode == 0, result.stderr
    assert str(mended) in result.stdout
    assert json.loads(dpo_hub("check", mended, "--json").stdout)["pairs"] == 2
    assert "a tie" in (tmp_path / "mended-changes.csv").read_text(encoding="utf-8-sig")


def test_check_loads_no_torch(few_pairs: Path) -> None:
    """Checking a file without a model needs the light core only."""
    code = (
        "import sys; from dpo_hub.cli import cli; cli(['check', sys.argv[1]], standalone_mode=False); "
        "sys.exit(bool({'torch', 'transformers', 'datasets', 'trl', 'gradio'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(few_pairs)], check=False).returncode == 0


def test_train_has_an_option_for_each_setting() -> None:
    """The recipe's fields are the options of `train`, with their help."""
    shown = dpo_hub("train", "--help").stdout
    for option in ("--beta", "--epochs", "--lora-r", "--learning-rate", "--sft-weight", "--held-out", "--auto-stop"):
        assert option in shown


def test_preflight_tells_what_a_run_takes(few_pairs: Path, home: Path) -> None:
    """Parameters, pairs, memory, disk and time are a line each; nothing is left behind."""
    result = dpo_hub_process("preflight", few_pairs, "--epochs", "2", "--max-length", "60", "--flavor", "cpu-basic")
    assert result.returncode == 0, result.stderr
    told = " ".join(result.stdout.split())
    for part in (
        "trained 350,208 of 3,203,520 parameters (10.9%), on cpu",
        "pairs 32 to train on, 8 held out, 32 cut by it",
        "steps 4, with",
        "the process itself",
        "at most for checkpoints and adapter",
        "on this machine",
        "max_length cuts off the end",
        "so it is not known what cpu-basic costs.",
    ):
        assert part in told
    assert not home.exists()


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [("one", "two", "three"), ("Where is it?", "Here.", "No idea.")],
            "none is called prompt or chosen or rejected",
        ),
        ([COLUMNS], "has no row that can be read"),
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
    assert_one_clear_line(dpo_hub_process("train", tmp_path / "none.csv"), "There is no such file")
    assert_one_clear_line(dpo_hub("train", few_pairs, "--beta", "-1"), "beta is -1.0; it must lie between")
    assert all_runs() == []


def test_a_model_that_is_not_there(few_pairs: Path) -> None:
    """A base model that cannot be loaded is one line, and its run says that it failed."""
    assert_one_clear_line(dpo_hub("train", few_pairs, "--model", "no/such-model"), "no/such-model cannot be loaded")
    (run,) = all_runs()
    assert run.state.status == "failed"
    assert "no/such-model" in run.state.reason


@pytest.mark.full
def test_a_full_disk(few_pairs: Path) -> None:
    """Where there is no room for the adapter, the run has failed and nothing passes for finished."""
    assert_one_clear_line(dpo_hub_process("train", few_pairs, limit_file_size=1_000_000), "No room to write")
    (run,) = all_runs()
    assert run.state.status == "failed"
    assert not run.adapter.exists()
    assert_one_clear_line(dpo_hub("chat", "last", "hello"), "is failed, not finished")


@pytest.mark.full
def test_a_run_that_goes_wrong_is_told_and_stopped(few_pairs: Path) -> None:
    """What went wrong and what to change stands at the end, and which step's adapter it is."""
    wrong = ("--beta", "0.1", "--sft-weight", "0", "--learning-rate", "0.02", "--batch-size", "4")
    trained = dpo_hub("train", few_pairs, *wrong, "--epochs", "8", "--evaluations", "16", "--auto-stop")
    assert trained.returncode == 0, trained.stderr
    assert "high" in trained.stdout
    assert "Chosen replies become unlikely" in trained.stdout
    told = Run.open("last").report["auto_stop"]
    assert f"Ended at step {told['ended']} of 64; the adapter is that of step {told['kept']}." in trained.stdout
    assert "note: step " in trained.stderr


def test_train_then_chat(few_pairs: Path) -> None:
    """A file goes in, a run folder with everything in it comes out, and both sides answer."""
    trained = dpo_hub_process("train", few_pairs, "--epochs", "2", "--beta", "0.2")
    assert trained.returncode == 0, trained.stderr
    assert "40 pairs, read as: one pair a row; prompt, chosen, rejected. Every row was used." in trained.stdout
    assert "There are only 40 pairs." in trained.stdout
    run = Run.open("last")
    assert f"\n{headline_of(run).sentence}\nHeld-out reward accuracy" in trained.stdout
    assert run.report["versions"].keys() >= {"Python", "dpo_hub", "torch", "transformers", "trl", "peft"}
    assert run.recipe.beta == 0.2
    assert run.state.status == "finished"
    assert {path.name for path in run.path.iterdir()} >= {
        "recipe.json", "preferences.parquet", "report.json", "state.json", "metrics.jsonl", "log.txt", "adapter",
        "evaluation.json", "samples.jsonl", "curves.png", "README.md",
    }  # fmt: skip
    assert len(run.samples) == 4
    chatted = dpo_hub("chat", "last", run.path, "Hello!", "--seed", "1")
    assert chatted.returncode == 0, chatted.stderr
    assert "before" in chatted.stdout
    assert chatted.stdout.count(run.id[:20]) == 2
    piped = dpo_hub("chat", "last", "--temperature", "0", typed="Hello!\n\nWhere is my order?\n")
    assert piped.returncode == 0, piped.stderr
    assert [line.partition(": ")[0] for line in piped.stdout.splitlines()] == ["before", "after", ""] * 2
    _go_on(run, few_pairs)
    _talk(first_side=piped.stdout.partition("before: ")[2].split()[0])


def _go_on(run: Run, pairs: Path) -> None:
    """Train a second round from the first one's adapter; it has the first one's recipe unless told otherwise."""
    refused = dpo_hub("train", pairs, "--continue-from", run.id, "--lora-r", "4")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "lora_r is 4, and the adapter to go on from has 16. Leave it out." in refused.stderr
    trained = dpo_hub("train", pairs, "--continue-from", run.id, "--epochs", "1")
    assert trained.returncode == 0, trained.stderr
    second = Run.open("last")
    assert (second.report["continues"], second.recipe) == (
        run.id,
        replace(run.recipe, epochs=1.0, learning_rate=0.0004),
    )
    assert f"--continue-from {run.id} --beta 0.2 --learning-rate 0.0004 --epochs 1.0" in second.card
    assert "Mean margin" in second.card
    assert "than the earlier adapter does" in " ".join(second.card.split())
    second.remove()


def _talk(first_side: str) -> None:
    """Chat in a real terminal: a question, its replies in columns, and an empty line to end."""
    shown, terminal = pty.openpty()
    command = [sys.executable, "-m", "dpo_hub", "chat", "last", "--temperature", "0"]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal) as chat:
        os.close(terminal)
        _until(shown, b"> ")
        os.write(shown, b"Hello!\n")
        told = _until(shown, b"\r\n> ").decode()
        os.write(shown, b"\n")
        assert chat.wait() == 0
    os.close(shown)
    assert first_side in told
    assert told.count("before") > 2, "the columns are drawn again as the replies grow"


def _until(shown: int, end: bytes) -> bytes:
    read = b""
    while not read.endswith(end):
        read += os.read(shown, 1024)
    return read


@pytest.mark.full
def test_the_demo_prints_what_changed() -> None:
    """One use, end to end on the embedded model, meets the bar that the project holds itself to."""
    result = dpo_hub_process("demo", "tone", "--model", "demo", "--json")
    assert result.returncode == 0, result.stderr
    (use,) = json.loads(result.stdout)["uses"]
    assert use["name"] == "tone"
    assert 0.3 <= use["before"] <= 0.7
    assert use["after"] >= 0.95
    assert use["details"]["well-formed"][1] >= 0.95
    assert use["after_interval"][0] > use["before_interval"][1]
    assert use["reward_accuracy"] >= 0.95
    assert use["seconds"] > 0


def test_an_unknown_use_is_told(home: Path) -> None:
    """A name that is no use is refused with those there are."""
    assert_one_clear_line(dpo_hub("demo", "tonne"), "'tonne' is not one of the uses: conciseness, tone,")
    assert not home.exists()


def test_a_home_that_cannot_be_made(few_pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where runs cannot be kept, the path is named."""
    monkeypatch.setenv("DPO_HUB_HOME", str(few_pairs / "home"))
    assert_one_clear_line(dpo_hub("train", few_pairs), f"{few_pairs}/home")
