from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpo_hub.preferences import read_preferences
from dpo_hub.preferences.export import write_preferences
from dpo_hub.runs.run import Run

from .command import assert_one_clear_line, dpo_hub


def test_score_writes_a_file_beside_the_one_it_was_given(trained_run: Run, tmp_path: Path) -> None:
    """What was read, scored, left without and written is told; the file has the reward and the rank."""
    path = tmp_path / "replies.tsv"
    path.write_text("ask\ttext\nWhere is it?\tOn its way!\nWhere is it?\tWait.\nWhere is it?\t\n")
    told = dpo_hub("score", trained_run.path, path, "--map", "prompt=ask").stdout
    assert "Read as: prompt ← `ask`, reply ← `text`" in told
    assert "Scored: 2 of 3 replies" in told
    assert "Left without a reward: 1 row, no reply (row 4)" in told
    assert "replies.scored.csv, with reward, rank" in told
    header, *rows = (tmp_path / "replies.scored.csv").read_text(encoding="utf-8-sig").splitlines()
    assert header == "ask,text,reward,rank"
    assert sorted(row.rpartition(",")[2] for row in rows) == ["", "1", "2"]


def test_score_shows_replies_token_by_token(trained_run: Run) -> None:
    """Replies given on the command line are ranked; as JSON, each token has its reward, and they add up."""
    asked = ("score", trained_run.path, "--prompt", "Where is it?", "--reply", "Wait [now].", "--reply", "On its way!")
    shown = dpo_hub(*asked).stdout
    assert "Wait [now].<|end|>" in shown
    replies = json.loads(dpo_hub(*asked, "--json").stdout)["replies"]
    assert {reply["reply"] for reply in replies} == {"Wait [now].", "On its way!"}
    assert replies[0]["reward"] >= replies[1]["reward"]
    for reply in replies:
        assert "".join(reply["tokens"]) == f"{reply['reply']}<|end|>"
        assert sum(reply["rewards"]) == pytest.approx(reply["reward"])
        assert f"{reply['reward']:+.3f}" in shown


def test_evaluate_agrees_with_the_runs_own_evaluation(trained_run: Run, tmp_path: Path) -> None:
    """On a file of the run's held-out pairs, the figures are those of its evaluation."""
    path = tmp_path / "held_out.csv"
    write_preferences(trained_run.pairs("held_out"), path)
    report = json.loads(dpo_hub("evaluate", trained_run.path, path, "--json").stdout)
    for name in ("pairs", "margin", "reward_accuracy", "chosen_reward", "rejected_reward"):
        assert report[name] == pytest.approx(trained_run.evaluation[name], abs=1e-4)
    assert report["trained_on"] == 0
    assert report["preferences"]["pairs"] == report["pairs"]
    told = dpo_hub("evaluate", trained_run.path, path).stdout
    assert "reward accuracy" in told
    assert "95 % interval" in told


def test_bad_input_is_one_line(trained_run: Run, few_pairs: Path) -> None:
    """What is missing, contradicts itself, or is not there is told in one line."""
    run = trained_run.path
    assert_one_clear_line(dpo_hub("score", run), "Give either a FILE to score, or --prompt")
    assert_one_clear_line(dpo_hub("score", run, few_pairs, "--prompt", "x"), "Give either a FILE")
    assert_one_clear_line(dpo_hub("score", run, "owner/name"), "--out")
    assert_one_clear_line(dpo_hub("score", run, few_pairs, "--out", few_pairs), "would be written over")
    assert_one_clear_line(dpo_hub("score", run, few_pairs, "--out", "none/out.csv"), "There is no folder none")
    assert_one_clear_line(dpo_hub("score", run, "none.csv"), "There is no such file")
    assert_one_clear_line(dpo_hub("evaluate", run, "none.csv"), "There is no such file")
    assert_one_clear_line(dpo_hub("evaluate", "none", few_pairs), "There is no run none")
    assert read_preferences(few_pairs).rows == 40, "the file is as it was"
