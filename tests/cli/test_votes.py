"""Voting in the terminal on a real run, as a user would."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from dpo_hub.comparison.duet import Duet
from dpo_hub.comparison.tally import Tally, tally
from dpo_hub.comparison.votes import cast, make_ballot, votes_of
from dpo_hub.demo import FILES
from dpo_hub.demo.shop import TONE
from dpo_hub.hub.card import render_card
from dpo_hub.jobs.worker import work
from dpo_hub.preferences import read_preferences, text_of
from dpo_hub.recipe import Recipe
from dpo_hub.runs.run import Run

from .command import assert_one_clear_line, dpo_hub


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A short run that learned a warmer tone."""
    folder = tmp_path_factory.mktemp("trained")
    lines = (FILES / "tone.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "few.csv").write_text("".join(lines[:81]), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPO_HUB_HOME", str(folder))
        return work(Run.create(read_preferences(folder / "few.csv"), Recipe.for_model(epochs=2)))


@pytest.fixture
def run(trained: Run) -> Run:
    """The same run without votes."""
    (trained.path / "votes.jsonl").unlink(missing_ok=True)
    measured = {
        name: value for name, value in trained.evaluation.items() if name not in Tally(1, 0, 0, 0).as_evaluation()
    }
    trained.write("evaluation.json", json.dumps(measured))
    trained.write("README.md", render_card(trained))
    return trained


def voting(run: Run, keys: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """Vote with *keys* typed, which may be fewer than are asked for."""
    return dpo_hub("vote", run.path, "--voter", "ada", *options, typed=keys)


def test_a_session_of_votes(run: Run, tmp_path: Path) -> None:
    """Keys are votes, what is no key is asked again, half an edit is none, and the tally comes at the end."""
    session = voting(run, "l\nx\nr\nt\nb\ne\nl\nDear Ada,\nit is on its way.\n.\ne\nr\nhalf a repl")
    assert session.returncode == 0, session.stderr
    choices = [vote.choice for vote in votes_of(run)]
    assert choices == ["left", "right", "tie", "both_bad", "left"]
    assert votes_of(run)[-1].edit == "Dear Ada,\nit is on its way."
    asked, _, told = session.stdout.rpartition("full stop.")
    assert "of 5 blind votes" in told
    assert not any(word in asked for word in ("before", "after"))
    assert "by 5 comparisons" in run.card

    counted = json.loads(dpo_hub("votes", run.path, "--json").stdout)
    assert (counted["comparisons"], counted["ties"], counted["both_bad"]) == (5, 1, 1)
    written = dpo_hub("votes", run.path, "--to", tmp_path / "new.csv").stdout
    assert f"dpo-hub train {tmp_path / 'new.csv'}" in written
    pairs = read_preferences(tmp_path / "new.csv").pairs
    beside = json.loads((tmp_path / "new.csv.provenance.json").read_text(encoding="utf-8"))
    assert [text_of(pair.chosen) == told["edit"] for pair, told in zip(pairs, beside, strict=True)] == [0, 0, 1]
    assert {(told["run"], told["voter"]) for told in beside} == {(run.id, "ada")}


def test_prompts_of_ones_own(run: Run, tmp_path: Path) -> None:
    """Given on the command line and line by line in a file, all of them, until the voter quits."""
    own = ["This is Eve. Has order 54321 left yet?", "I am Ada. Where is my red lamp?", "Bob here. Where is my pan?"]
    file = tmp_path / "ask.txt"
    file.write_text(f"{own[1]}\n\n{own[2]}\n")
    session = voting(run, "l\nl\nq\n", "--prompt", own[0], "--prompts", file, "--temperature", "1", "--count", "1")
    assert all(f"{number} of 3: {prompt}" in session.stdout for number, prompt in enumerate(own, 1))
    assert [text_of(vote.prompt) for vote in votes_of(run)] == own[:2]
    file.write_text("\n \n")
    assert_one_clear_line(voting(run, "", "--prompts", file), "has no line to ask")


def test_without_votes_the_commands_say_how_to_vote(run: Run, tmp_path: Path) -> None:
    """There is nothing to tell, and nothing to write."""
    assert f"dpo-hub vote {run.id}" in dpo_hub("votes", run.path).stdout
    assert_one_clear_line(dpo_hub("votes", run.path, "--to", tmp_path / "new.csv"), "dpo-hub vote")


def test_a_voter_who_likes_warm_replies_finds_after_better(run: Run) -> None:
    """Voting blindly by the shop's own measure of tone, a simulated customer comes to the verdict."""
    prompts = [pair.prompt for pair in run.pairs("held_out")] * 3
    for prompt, both in zip(prompts, Duet.open(run).replies(prompts, seed=1), strict=True):
        if ballot := make_ballot(prompt, both.before, both.after):
            left, right = (TONE.is_preferred(text_of(prompt), reply) for reply in ballot.shown)
            cast(run, ballot.vote("tie" if left == right else "left" if left else "right", voter="warm"))
    votes = votes_of(run)
    assert tally(votes).verdict == "after"
    assert set(Counter(vote.left for vote in votes)) == {"before", "after"}
