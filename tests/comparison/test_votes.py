"""Votes in a run's folder, cast by real processes that are killed, and the preferences they become."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dpo_hub.comparison.duet import Replies
from dpo_hub.comparison.tally import tally, update_card
from dpo_hub.comparison.votes import (
    FILE,
    Ballot,
    Choice,
    Vote,
    ballots,
    cast,
    least_voted,
    make_ballot,
    preferences_of,
    votes_of,
)
from dpo_hub.hub.card import render_card
from dpo_hub.preferences import read_preferences, text_of
from dpo_hub.preferences.export import write_preferences
from dpo_hub.preferences.pairs import Messages
from dpo_hub.runs.run import Run
from tests.conftest import PATIENCE
from tests.hub.conftest import finish, measured_run

VOTES = 1_000
LONG_REPLY = "a reply that takes several blocks of the disk " * 100
VOTER = f"""
import sys
from itertools import count
from pathlib import Path
from dpo_hub.comparison.votes import Ballot, cast
from dpo_hub.preferences.pairs import Messages
from dpo_hub.runs.run import Run

run, voter = Run(Path(sys.argv[1])), sys.argv[2]
for number in range({VOTES}) if voter in "23" else count():
    ballot = Ballot(str(number), [{{"role": "user", "content": "é?"}}], "no", {LONG_REPLY!r}, "before")
    cast(run, ballot.vote("left", voter=voter))
    print(number, flush=True)
"""
"""Prints the number of each vote once it is cast; voters 0 and 1 never end."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return finish(measured_run(tmp_path / "home"))


def ballot(text: str = "why", *, before: str = "no", after: str = "because", left: Any = "before") -> Ballot:
    drawn = make_ballot([{"role": "user", "content": text}], before, after)
    assert drawn
    return Ballot(drawn.id, drawn.prompt, before, after, left)


def vote(choice: Choice, text: str = "why", *, voter: str = "ada", edit: str | None = None, **replies: Any) -> Vote:
    return ballot(text, **replies).vote(choice, voter=voter, edit=edit)


def test_which_is_which_is_random_and_not_told() -> None:
    """Either side is left about as often, and nothing of a ballot but the vote on it gives the order away."""
    drawn = [
        ballot for n in range(2_000) if (ballot := make_ballot([{"role": "user", "content": str(n)}], "one", "two"))
    ]
    assert 880 < Counter(ballot.shown for ballot in drawn)["one", "two"] < 1_120  # 5.4 standard deviations
    assert not any(told in repr(drawn[0]) for told in ("one", "two", "before", "after", "left"))
    turned = make_ballot([{"role": "user", "content": "0"}], "two", "one")
    assert turned
    assert turned.id == drawn[0].id
    rng = (random.Random(5), random.Random(5))
    assert make_ballot(turned.prompt, "a", "b", rng=rng[0]) == make_ballot(turned.prompt, "a", "b", rng=rng[1])


def test_the_same_reply_twice_is_not_worth_a_vote() -> None:
    """There is no ballot where the two sides say the same."""
    assert make_ballot([{"role": "user", "content": "why"}], "because", "because\n") is None


def test_other_prompts_are_asked_where_both_sides_say_the_same() -> None:
    """As many ballots as asked for are drawn, and no more prompts replied to than that takes."""
    prompts = [[{"role": "user", "content": str(number)}] for number in range(9)]
    replied: list[str] = []

    def replying(some: Sequence[Messages]) -> list[Replies]:
        replied.extend(map(text_of, some))
        return [Replies(str(int(text_of(prompt)) % 3), "0") for prompt in some]

    drawn = list(ballots(prompts, replying, count=2))
    assert [text_of(ballot.prompt) for ballot in drawn] == ["1", "2"]
    assert replied == ["0", "1", "2", "3"]
    assert len(list(ballots(prompts[:4], replying, count=4))) == 2


def test_prompts_that_a_voter_has_not_seen_come_first(run: Run) -> None:
    """The held-out prompts, each once; the votes of others do not matter."""
    one, two = least_voted(run, "ada")
    assert {text_of(one), text_of(two)} == {text_of(pair.prompt) for pair in run.pairs("held_out")}
    cast(run, vote("tie", text_of(one)))
    assert least_voted(run, "ada") == [two, one]
    assert least_voted(run, "bob") == [one, two]


@pytest.mark.parametrize(("left", "other"), [("before", "after"), ("after", "before")])
def test_a_vote_is_for_the_side_that_was_shown_there(left: Any, other: Any) -> None:
    """Left is whatever stood left; a tie and both bad are for neither."""
    assert [vote(choice, left=left).better for choice in ("left", "right", "tie", "both_bad")] == [
        left,
        other,
        None,
        None,
    ]


def test_votes_come_back_as_they_were_cast(run: Run) -> None:
    """In their order, whatever characters are in them."""
    votes = [vote("left", text, edit="one\u2028two\x85\r\nthree") for text in ('"', "\n", "\u2028é")]
    for one in votes:
        cast(run, one)
    assert votes_of(run) == votes
    assert votes_of(Run(run.path.parent)) == []


def test_the_first_vote_of_a_voter_on_a_ballot_counts(run: Run) -> None:
    """Cast again it counts once; another voter's counts too."""
    first, other = vote("left"), vote("right", voter="bob")
    for one in (first, vote("right"), other, first):
        cast(run, one)
    assert votes_of(run) == [first, other]


@pytest.mark.parametrize("torn", [b'{"ballot": "1", "voter": "\xc3', b'{"ballot"', b"{"])
def test_half_a_line_harms_no_other_vote(run: Run, torn: bytes) -> None:
    """What a killed process left is not read, and the next vote has a line of its own."""
    cast(run, vote("left", "one"))
    with (run.path / FILE).open("ab") as file:
        file.write(torn)
    assert len(votes_of(run)) == 1
    cast(run, vote("left", "two"))
    assert [text_of(one.prompt) for one in votes_of(run)] == ["one", "two"]


def test_no_vote_is_lost_or_doubled_when_voters_are_killed(run: Run) -> None:
    """Four processes vote at once and two are killed: each vote that was acknowledged is there once, and no half."""
    voters = [
        subprocess.Popen([sys.executable, "-c", VOTER, run.path, str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    acknowledged: list[tuple[str, str]] = []
    said = [voter.stdout for voter in voters if voter.stdout]
    for number, killed_after in ((0, 200), (1, 450)):
        acknowledged += [(next(said[number]).strip(), str(number)) for _ in range(killed_after)]
        voters[number].kill()
    for number, voter in enumerate(voters):
        acknowledged += [(line.strip(), str(number)) for line in said[number]]
        voter.communicate(timeout=PATIENCE)
    assert [voter.returncode for voter in voters] == [-9, -9, 0, 0]
    assert len(acknowledged) == len(set(acknowledged)) >= 2 * VOTES + 650

    lines_read, torn = Counter[tuple[str, str]](), 0
    for line in (run.path / FILE).read_bytes().splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            torn += 1
        else:
            lines_read[told["ballot"], told["voter"]] += 1
    assert torn <= 2
    assert set(lines_read.values()) == {1}
    assert set(acknowledged) <= set(lines_read)
    assert len(lines_read) - len(acknowledged) <= 2  # written, but killed before it could be said
    assert {(one.ballot, one.voter) for one in votes_of(run)} == set(lines_read)


VOTED = [
    vote("left", "a"),
    vote("right", "b"),
    vote("tie", "c"),
    vote("both_bad", "d"),
    vote("left", "e", edit=" mended\n\n```\n  code\n``` "),
    vote("both_bad", "f", edit="=1+1"),
    vote("right", "g", after=""),
    vote("left", "h", edit="no"),
]


def test_votes_become_pairs() -> None:
    """The side chosen against the other, an edit against what it improves on; the rest is counted by reason."""
    made = preferences_of(VOTED)
    assert [(pair.row, text_of(pair.chosen), text_of(pair.rejected)) for pair in made.pairs] == [
        (1, "no", "because"),
        (2, "because", "no"),
        (5, "mended\n\n```\n  code\n```", "no"),
        (6, "=1+1", "because"),
        (8, "no", "because"),
    ]
    assert made.left_out == {"a tie": [3], "both replies bad": [4], "an empty reply": [7]}
    assert "3 rows left out (a tie: row 3" in made.sentence()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_pairs_of_votes_are_read_back_as_they_were(tmp_path: Path, kind: str) -> None:
    """What is written is a preference file like any other."""
    pairs = preferences_of(VOTED).pairs
    write_preferences(pairs, tmp_path / f"votes.{kind}")
    read = read_preferences(tmp_path / f"votes.{kind}")
    assert [pair.messages for pair in read.pairs] == [pair.messages for pair in pairs]
    assert not read.left_out


def test_the_win_rate_goes_into_evaluation_and_card(run: Run) -> None:
    """Each time anew, beside what was measured; without votes nothing changes."""
    without = (run.card, run.evaluation)
    assert update_card(run)
    assert (run.card, run.evaluation) == without
    for text in ("one", "two"):
        cast(run, vote("right", text))
        assert update_card(run)
    assert run.evaluation == without[1] | tally(votes_of(run)).as_evaluation()
    assert "| Win rate against the reference | 1.000 (0.342 to 1.000, by 2 comparisons) |" in run.card


def test_a_card_edited_by_hand_is_not_written_over(run: Run) -> None:
    """It stays until it is removed; the evaluation has the win rate all the same."""
    edited = f"{run.card}\nBy hand.\n"
    run.write("README.md", edited)
    cast(run, vote("right"))
    assert not update_card(run)
    assert run.card == edited
    assert run.evaluation["win_rate"] == 1
    (run.path / "README.md").unlink()
    assert update_card(run)
    assert run.card == render_card(run)
