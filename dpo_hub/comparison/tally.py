"""Summarises blind votes: the win rate with its interval, and whether there are enough for a verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import MissingExtraError
from ..preferences.pairs import pluralise
from ..runs.intervals import ERROR, wilson
from ..runs.run import Run
from .lengths import LengthControlled, as_figures, length_controlled, length_sentences
from .record import lock_of, save_figures
from .votes import Vote, votes_of

VERDICT_THRESHOLD = math.log(1 / ERROR)
MOST = 2_000
"""The most further votes worth asking for."""
WORTH = {"after": 1.0, "before": 0.0, None: 0.5}
"""The share of a win that a vote gives "after", by the side it chose."""


@dataclass(frozen=True)
class Tally:
    """Counts of votes: for "after", for "before", ties, and both bad.

    `unequal` counts the votes for one of two replies of different length; `longer` of them chose the longer reply.
    """

    after: int
    before: int
    ties: int
    both_bad: int
    longer: int = 0
    unequal: int = 0
    lengths: tuple[tuple[float, int], ...] = field(default=(), compare=False, repr=False)
    """For each vote, its `WORTH`, and how many characters longer "after" is."""

    @property
    def votes(self) -> int:
        return self.after + self.before + self.ties + self.both_bad

    @property
    def win_rate(self) -> float:
        """The share of votes that "after" wins, 0..1; ties count half.

        Both bad counts as a tie, as in Chatbot Arena: which votes count must not depend on their outcome.
        """
        return (self.after + (self.ties + self.both_bad) / 2) / self.votes if self.votes else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of the win rate; a little too wide with ties, as half wins vary less than wins."""
        return wilson(self.win_rate, self.votes)

    @property
    def length_controlled(self) -> LengthControlled | None:
        """The win rate at equal lengths; None without enough different votes, or without numpy and scipy."""
        with suppress(MissingExtraError):
            return length_controlled([won for won, _ in self.lengths], [longer for _, longer in self.lengths])
        return None

    @property
    def verdict(self) -> str | None:
        """`after` or `before` if that is significantly better, else None. Valid even if checked after every vote."""
        if log_bayes_factor(self.after, self.before) < VERDICT_THRESHOLD:
            return None
        return "after" if self.after > self.before else "before"

    @property
    def votes_needed(self) -> int | None:
        """About how many more votes a verdict needs if they continue in the same ratio; None if more than `MOST`."""
        for further in range(0, MOST + 1) if self.after != self.before else ():
            grown = 1 + further / self.votes
            if log_bayes_factor(self.after * grown, self.before * grown) >= VERDICT_THRESHOLD:
                return further
        return None

    def as_evaluation(self) -> dict[str, float]:
        """The figures named as in a run's evaluation.json and its card."""
        low, high = self.interval
        told = {"win_rate": self.win_rate, "win_rate_low": low, "win_rate_high": high, "comparisons": self.votes}
        return told | as_figures(self.length_controlled)

    def as_dict(self) -> dict[str, Any]:
        figures = self.as_evaluation() if self.votes else {"comparisons": 0}
        counts = {name: count for name, count in asdict(self).items() if name != "lengths"}
        return figures | counts | {"verdict": self.verdict, "more": self.votes_needed}

    def sentences(self) -> list[str]:
        """The same as sentences for people."""
        if not self.votes:
            return ["There is no vote yet."]
        low, high = self.interval
        told = [
            f"After was preferred in {self.win_rate:.0%} of {pluralise(self.votes, 'blind vote')} (95% interval "
            f"{low:.0%} to {high:.0%}): {self.after} for after, {self.before} for before, "
            f"{pluralise(self.ties, 'tie')} and {self.both_bad} with both bad, which count half.",
            self._verdict_sentence(),
        ]
        if self.unequal:
            told.append(
                f"Of {pluralise(self.unequal, 'vote')} for one of two lengths, {self.longer} went to the longer reply."
            )
            told += length_sentences(self.length_controlled)
        return told

    def _verdict_sentence(self) -> str:
        if self.verdict:
            return f"Verdict: {self.verdict} is better. Of equals, {ERROR:.0%} at most would ever get a verdict."
        if self.votes_needed is None:
            return "No verdict yet, and none in sight: so far the two are close."
        return f"No verdict yet: about {self.votes_needed} more votes if they go on like this."


def tally(votes: Iterable[Vote]) -> Tally:
    """Count *votes*."""
    votes = list(votes)
    counts = Counter(vote.better or vote.choice for vote in votes)
    unequal = [vote for vote in votes if vote.better and len(vote.after) != len(vote.before)]
    longer = sum((vote.better == "after") == (len(vote.after) > len(vote.before)) for vote in unequal)
    lengths = tuple((WORTH[vote.better], len(vote.after) - len(vote.before)) for vote in votes)
    return Tally(counts["after"], counts["before"], counts["tie"], counts["both_bad"], longer, len(unequal), lengths)


def log_bayes_factor(wins: float, losses: float) -> float:
    """Test the votes for either side against a fair coin: return log Λ, which may be checked after every vote.

    Λₙ = ∫₀¹ pʷ(1−p)ˡ dp / 2⁻ⁿ = 2ⁿ B(w+1, l+1), the mixture of likelihood ratios of Robbins (Ann. Math. Statist. 41,
    1970, 1397–1409) with a uniform prior. For a fair coin Λ is a martingale that starts at 1, so by Ville's inequality
    P(some Λₙ ≥ 1/α) ≤ α. Ties say nothing about which is better and are not among the n votes. Votes count as
    independent: many voters on the same few replies prove less about the model than as many replies would.
    """
    number = wins + losses
    return number * math.log(2) + math.lgamma(wins + 1) + math.lgamma(losses + 1) - math.lgamma(number + 2)


def update_card(run: Run) -> bool:
    """Write the summary of *run*'s votes to its evaluation and its card; returns the result of `save_figures`."""
    with lock_of(run):
        found = tally(votes_of(run))
        return save_figures(run, found.as_evaluation() if found.votes else {})
