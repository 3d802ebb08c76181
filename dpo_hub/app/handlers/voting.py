"""Blind votes: which reply is better, the result of the votes, and the preferences made from them."""

from __future__ import annotations

import getpass
import random
import tempfile
from pathlib import Path

from ...comparison.tally import tally
from ...comparison.votes import FILE, Ballot, Choice, Vote, ballots, cast, least_voted, preferences_of, votes_of
from ...errors import RunError
from ...preferences.export import write_preferences
from ...preferences.pairs import Messages
from ...runs.run import Run
from ..visitors import Visitor
from .files import save_copy
from .model_host import ModelHost

AT_ONCE = 2
"""Prompts answered in one batch: with more, the first vote comes later and the next ones sooner."""


def next_ballot(stage: ModelHost, visitor: Visitor, run_id: str, *, asked: str = "") -> Ballot:
    """Have both sides reply to *asked*, or else to the held-out prompt that this visitor has voted on least.

    Raises:
        RunError: both sides reply the same to every prompt; also as `ModelHost.ready`.
        ModelError: as `ModelHost.ready`.
    """
    duet = stage.ready(visitor, run_id)
    run = _run(visitor, run_id)
    prompts: list[Messages] = (
        [[{"role": "user", "content": asked.strip()}]] if asked.strip() else least_voted(run, voter(visitor))
    )
    seed = random.randrange(2**31)
    found = next(ballots(prompts, lambda some: duet.replies(some, seed=seed), count=AT_ONCE), None)
    if found is None:
        raise RunError("Both sides reply the same, so there is nothing to vote on. Ask something else.")
    return found


def vote(visitor: Visitor, run_id: str, ballot: Ballot, choice: Choice, edit: str = "") -> Vote:
    """Save the visitor's vote; when this returns, it is on disk."""
    filled = ballot.vote(choice, voter=voter(visitor), edit=edit)
    cast(_run(visitor, run_id), filled)
    return filled


def result(visitor: Visitor, run_id: str) -> list[str]:
    """The result of the votes on a run, in sentences."""
    run = visitor.run(run_id)
    return tally(votes_of(run)).sentences() if run else []


def as_file(visitor: Visitor, run_id: str) -> str:
    """Make a preference file from the votes on a run, and return the file's id.

    Raises:
        RunError: no vote gives a pair.
    """
    run = _run(visitor, run_id)
    made = preferences_of(votes_of(run), source=f"{run.id}/{FILE}")
    if not made.pairs:
        raise RunError("No vote gives a pair yet. Vote for a side, or write a better reply.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "votes.jsonl"
        write_preferences(made.pairs, path)
        return save_copy(visitor.shelf, path, f"votes-on-{run.id}.jsonl")


def voter(visitor: Visitor) -> str:
    """The voter's name: the visitor's on the Hub, or this machine's user."""
    return visitor.name or getpass.getuser()


def _run(visitor: Visitor, run_id: str) -> Run:
    run = visitor.run(run_id)
    if run is None:
        raise RunError("This run is not there any more.")
    return run
