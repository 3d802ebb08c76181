"""Blind votes on replies before and after, saved in a run's folder, and the preference pairs made from them.

Knows nothing of how replies are made or of who asks for a vote.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Literal

from ..preferences import PreferencePair, Preferences
from ..preferences.pairs import Messages
from ..runs.run import Run
from .jsonl import append, records
from .record import lock_of

if TYPE_CHECKING:
    from .duet import Replies

Side = Literal["before", "after"]
Choice = Literal["left", "right", "tie", "both_bad"]

FILE = "votes.jsonl"
LEFT_OUT = {"tie": "a tie", "both_bad": "both replies bad"}
"""Why a vote without an edit gives no pair."""


@dataclass(frozen=True)
class Vote:
    """A *voter*'s choice, and which side was shown on the left; `edit` is a better reply that they wrote."""

    ballot: str
    voter: str
    prompt: Messages
    before: str
    after: str
    left: Side
    choice: Choice
    edit: str | None
    time: str

    @property
    def better(self) -> Side | None:
        """The side that was chosen, if one was."""
        if self.choice not in ("left", "right"):
            return None
        return "after" if (self.choice == "left") == (self.left == "after") else "before"

    def reply(self, side: Side) -> str:
        return self.after if side == "after" else self.before


@dataclass(frozen=True)
class Ballot:
    """Two replies to a prompt, as they are `shown`; its repr hides what must stay secret until the vote."""

    id: str
    prompt: Messages
    before: str = field(repr=False)
    after: str = field(repr=False)
    left: Side = field(repr=False)

    @property
    def shown(self) -> tuple[str, str]:
        """The left reply and the right one."""
        return (self.before, self.after) if self.left == "before" else (self.after, self.before)

    def vote(self, choice: Choice, *, voter: str, edit: str | None = None) -> Vote:
        """Fill in the ballot. An *edit* that is empty or changes nothing is ignored."""
        written = (edit or "").strip()
        changed = written if written not in ("", self.before.strip(), self.after.strip()) else None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return Vote(self.id, voter, self.prompt, self.before, self.after, self.left, choice, changed, now)


def make_ballot(prompt: Messages, before: str, after: str, *, rng: random.Random | None = None) -> Ballot | None:
    """Put two replies side by side in an unpredictable order, unless *rng* is given.

    The id identifies the prompt and the replies regardless of their order, so drawing them again gives the same id.
    Returns None if the replies are the same: there is nothing to vote on.
    """
    if before.strip() == after.strip():
        return None
    about = json.dumps([_key(prompt), *sorted([before, after])])
    left: Side = "before" if (rng or random.SystemRandom()).random() < 0.5 else "after"
    return Ballot(hashlib.sha256(about.encode()).hexdigest()[:16], prompt, before, after, left)


def ballots(
    prompts: Sequence[Messages], replying: Callable[[Sequence[Messages]], Sequence[Replies]], *, count: int
) -> Iterator[Ballot]:
    """Draw up to *count* ballots on *prompts*; more than *count* are answered only if some replies are identical."""

    def drawn() -> Iterator[Ballot | None]:
        for start in range(0, len(prompts), count):
            some = prompts[start : start + count]
            for prompt, both in zip(some, replying(some), strict=True):
                yield make_ballot(prompt, both.before, both.after)

    return islice(filter(None, drawn()), count)


def least_voted(run: Run, voter: str) -> list[Messages]:
    """The held-out prompts of *run*, each once, starting with those that *voter* has voted on least."""
    times = Counter(_key(vote.prompt) for vote in votes_of(run) if vote.voter == voter)
    return sorted(held_out_prompts(run), key=lambda prompt: times[_key(prompt)])


def held_out_prompts(run: Run) -> list[Messages]:
    """The held-out prompts of *run*, each once."""
    return list({_key(pair.prompt): pair.prompt for pair in run.pairs("held_out")}.values())


def _key(prompt: Messages) -> str:
    return json.dumps([dict(message) for message in prompt], sort_keys=True)


def cast(run: Run, vote: Vote) -> None:
    """Save *vote*: when this returns, it is on disk, whatever happens to this process or to others."""
    with lock_of(run):
        append(run.path / FILE, asdict(vote))


def votes_of(run: Run) -> list[Vote]:
    """The votes of *run* in the order they were cast; half a line left by a killed process is skipped.

    Only a voter's first vote on a ballot counts: later ones may not have been blind.
    """
    first: dict[tuple[str, str], Vote] = {}
    for told in records(run.path / FILE):
        vote = Vote(**told)
        first.setdefault((vote.ballot, vote.voter), vote)
    return list(first.values())


def preferences_of(votes: Sequence[Vote], *, source: str = FILE) -> Preferences:
    """Make preferences from *votes*, at most one pair each; a pair's row is the vote's number, from 1.

    If there is an edit, it is the chosen reply, and the rejected one is the reply that it improves on: the one voted
    better or, if neither was, "after", the model's current reply. A pair with a small difference best shows what to
    change (D'Oosterlinck et al. 2024, arXiv:2408.06266), and no vote counts twice. Voters may contradict each other:
    all pairs are kept, and the doctor reports it.
    """
    pairs: list[PreferencePair] = []
    left_out: dict[str, list[int]] = {}
    for number, vote in enumerate(votes, 1):
        if why := _no_pair(vote):
            left_out.setdefault(why, []).append(number)
        else:
            pairs.append(_pair(vote, number))
    return Preferences(source, "blind votes", pairs, left_out, rows=len(votes))


def _no_pair(vote: Vote) -> str | None:
    if not vote.edit and vote.better is None:
        return LEFT_OUT[vote.choice]
    return None if all(_parts(vote)) else "an empty reply"


def _parts(vote: Vote) -> tuple[str, str]:
    """The chosen reply and the rejected one."""
    better = vote.better or "after"
    if vote.edit:
        return vote.edit, vote.reply(better)
    return vote.reply(better), vote.reply("before" if better == "after" else "after")


def _pair(vote: Vote, number: int) -> PreferencePair:
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in _parts(vote))
    return PreferencePair(vote.prompt, chosen, rejected, number)


def provenance(run: Run, votes: Sequence[Vote], pairs: Iterable[PreferencePair]) -> list[dict[str, str | None]]:
    """For each of *pairs*, return the run and the vote that it comes from."""
    of = [votes[pair.row - 1] for pair in pairs]
    told = ("ballot", "voter", "time", "left", "choice", "edit")
    return [{"run": run.id, **{name: getattr(vote, name) for name in told}} for vote in of]
