"""Blind votes: which reply is better, what the votes come to, and the preferences that they become."""

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
from .files import keep
from .stage import Stage

AT_ONCE = 2
"""Prompts that are replied to at once; the next vote is there sooner for more, and the first later."""


def next_ballot(stage: Stage, visitor: Visitor, run_id: str, *, asked: str = "") -> Ballot:
    """Have both sides reply to what is *asked*, or to the held-out prompt that this visitor voted on least.

    Raises:
        RunError: both sides reply the same to every prompt; and as `Stage.ready`.
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
    """Keep the visitor's vote; once this returns it lies on the disk."""
    filled = ballot.vote(choice, voter=voter(visitor), edit=edit)
    cast(_run(visitor, run_id), filled)
    return filled


def result(visitor: Visitor, run_id: str) -> list[str]:
    """Say what the votes on a run come to."""
    run = visitor.run(run_id)
    return tally(votes_of(run)).sentences() if run else []


def as_file(visitor: Visitor, run_id: str) -> str:
    """Make a preference file of the votes on a run, and return its name on the visitor's shelf.

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
        return keep(visitor.shelf, path, f"votes-on-{run.id}.jsonl")


def voter(visitor: Visitor) -> str:
    """Whose vote it is: the name on the Hub, or that of this machine's user."""
    return visitor.name or getpass.getuser()


def _run(visitor: Visitor, run_id: str) -> Run:
    run = visitor.run(run_id)
    if run is None:
        raise RunError("This run is not there any more.")
    return run
