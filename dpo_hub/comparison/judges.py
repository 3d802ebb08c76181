"""Judgements by a model, not a person, on replies before and after: saved as they arrive, then summarised.

Knows nothing of how judges are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from ..preferences.pairs import Messages
from ..runs.intervals import of_share
from ..runs.run import Run
from .jsonl import append, records
from .lengths import LengthControlled, as_figures, length_controlled, length_sentences
from .record import lock_of, save_figures
from .votes import Ballot

FILE = "judgements.jsonl"
OWN = "judge_"
"""The prefix of the names of a judge's figures."""
AT_ONCE = 4
"""The number of comparisons run in parallel."""
Compare = Callable[[Ballot], Sequence[str] | None]
"""Returns `before`, `after` or `tie`, once for each order in which it asked; None if an answer was unreadable."""


@dataclass(frozen=True)
class Judgement:
    """A *judge*'s answers on two replies, one for each order in which they were shown."""

    ballot: str
    judge: str
    prompt: Messages
    before: str
    after: str
    said: Sequence[str]

    @property
    def contradicts_itself(self) -> bool:
        """Whether it preferred the reply in the same position in both orders."""
        return {"before", "after"} <= set(self.said)

    @property
    def outcome(self) -> float:
        """1 if "after" won in every order, 0 if "before" did, else 0.5, a tie."""
        return 1.0 if set(self.said) == {"after"} else 0.0 if set(self.said) == {"before"} else 0.5


@dataclass(frozen=True)
class Verdict:
    """A summary of a judge's judgements; identical replies count as ties without asking the judge."""

    judge: str
    judgements: Sequence[Judgement]
    same: int
    unclear: int

    @property
    def comparisons(self) -> int:
        return len(self.judgements) + self.same

    @property
    def contradictions(self) -> int:
        return sum(judgement.contradicts_itself for judgement in self.judgements)

    @property
    def _outcomes(self) -> list[float]:
        return [judgement.outcome for judgement in self.judgements] + [0.5] * self.same

    @property
    def length_controlled(self) -> LengthControlled | None:
        """The win rate estimated for replies of equal length in characters."""
        differences = [len(judgement.after) - len(judgement.before) for judgement in self.judgements]
        return length_controlled(self._outcomes, differences + [0] * self.same)

    def as_figures(self) -> dict[str, float]:
        """The figures named as in evaluation.json, with 95 % intervals by bootstrap, or Wilson's if all are alike."""
        if not self.comparisons:
            return {}
        low, high = of_share(self._outcomes)
        own = {"win_rate": fmean(self._outcomes), "win_rate_low": low, "win_rate_high": high}
        figures = own | {"comparisons": self.comparisons} | as_figures(self.length_controlled)
        return {f"{OWN}{name}": value for name, value in figures.items()}

    def as_dict(self) -> dict[str, Any]:
        told = {"judge": self.judge, "same": self.same, "unclear": self.unclear}
        return told | {"contradictions": self.contradictions} | self.as_figures()

    def sentences(self) -> Iterator[str]:
        """The same as sentences for people."""
        if figures := self.as_figures():
            rate, low, high = (figures[f"{OWN}win_rate{end}"] for end in ("", "_low", "_high"))
            yield (
                f"{self.judge} prefers after in {rate:.0%} of {self.comparisons} comparisons (95% interval {low:.0%} "
                f"to {high:.0%}); ties count half, and {self.same} replies were the same on both sides."
            )
            yield from length_sentences(self.length_controlled)
        if self.contradictions:
            yield f"In {self.contradictions} it preferred whatever stood in one place; these count as ties."
        if self.unclear:
            yield f"Of {self.unclear} no answer could be read; they are left out, and asked again the next time."


def judge(
    run: Run, name: str, ballots: Sequence[Ballot | None], compare: Compare, *, at_once: int = AT_ONCE
) -> Verdict:
    """Let the judge *name* compare the replies of *ballots*; None stands for identical replies.

    Each judgement is saved as it arrives. Replies that this judge has compared before are not asked about again. If a
    comparison fails, those in progress are finished and saved before the error is raised.
    """
    asked = {ballot.id: ballot for ballot in ballots if ballot}
    known = {kept.ballot for kept in judgements_of(run, name)}

    def ask(ballot: Ballot) -> None:
        said = compare(ballot)
        if said is not None:
            judgement = Judgement(ballot.id, name, ballot.prompt, ballot.before, ballot.after, list(said))
            with lock_of(run):
                append(run.path / FILE, asdict(judgement))

    pool = ThreadPoolExecutor(at_once)
    try:
        for done in as_completed(
            [pool.submit(ask, ballot) for ballot_id, ballot in asked.items() if ballot_id not in known]
        ):
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)
    judgements = [kept for kept in judgements_of(run, name) if kept.ballot in asked]
    return Verdict(name, judgements, sum(ballot is None for ballot in ballots), len(asked) - len(judgements))


def judgements_of(run: Run, name: str) -> list[Judgement]:
    """The judgements of the judge *name* on replies of *run*, one per comparison."""
    every = [Judgement(**line) for line in records(run.path / FILE)]
    return list({one.ballot: one for one in every if one.judge == name}.values())


def record_verdict(run: Run, verdict: Verdict) -> bool:
    """Write the *verdict* to evaluation and card, replacing any judge's; False if the card was edited and so kept."""
    with lock_of(run):
        return save_figures(run, verdict.as_figures(), instead_of=OWN)
