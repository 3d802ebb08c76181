from __future__ import annotations

import math
import random
from itertools import accumulate

import pytest

from dpo_hub.comparison.tally import VERDICT_THRESHOLD, Tally, log_bayes_factor, tally
from dpo_hub.runs.intervals import ERROR

from .test_votes import vote

LOOKS = 1_000


def test_votes_are_counted() -> None:
    """By side, ties and both bad as half a win each, and how often the longer reply was preferred."""
    votes = [
        vote("right"),
        vote("left"),
        vote("left", left="after"),
        vote("tie"),
        vote("both_bad", edit="neither"),
        vote("left", before="one", after="two"),
    ]
    counted = tally(votes)
    assert counted == Tally(after=2, before=2, ties=1, both_bad=1, longer=2, unequal=3)
    assert (counted.votes, counted.win_rate) == (6, 0.5)


def test_the_evidence_is_the_mixture_of_likelihood_ratios() -> None:
    """It starts at 1, and is the integral over all coins, here by the trapezoid rule."""
    assert log_bayes_factor(0, 0) == 0
    coins = [n / 10_000 for n in range(10_001)]
    integral = sum(p**32 * (1 - p) ** 18 for p in coins) / 10_000
    assert math.exp(log_bayes_factor(32, 18)) == pytest.approx(integral * 2**50, rel=1e-6)


def test_looking_after_every_vote_gives_few_false_verdicts() -> None:
    """Between sides that are alike, a verdict ever comes in at most 5 of 100 series of a thousand votes, exactly."""
    alive, false = {0: 1.0}, 0.0  # how likely a series has so many wins and had no verdict yet
    for votes in range(1, LOOKS + 1):
        grown: dict[int, float] = {}
        for wins, chance in alive.items():
            for now in (wins, wins + 1):
                grown[now] = grown.get(now, 0.0) + chance / 2
        alive = {
            wins: chance for wins, chance in grown.items() if log_bayes_factor(wins, votes - wins) < VERDICT_THRESHOLD
        }
        false += sum(chance for wins, chance in grown.items() if wins not in alive)
    assert 0.02 < false <= ERROR


def first_verdict(chance: float, dice: random.Random) -> tuple[str | None, int]:
    """The first verdict in a series of votes looked at one by one, a third of them ties, and after how many votes."""
    after = before = ties = 0
    for votes in range(1, LOOKS + 1):
        if dice.random() < 1 / 3:
            ties += 1
        elif dice.random() < chance:
            after += 1
        else:
            before += 1
        if verdict := Tally(after, before, ties, 0).verdict:
            return verdict, votes
    return None, LOOKS


def test_simulated_votes_give_the_right_verdict() -> None:
    """Alike, few series ever get one; where one side wins seven in ten, nearly all do, and for that side."""
    dice = random.Random(7)
    assert sum(first_verdict(0.5, dice)[0] is not None for _ in range(400)) / 400 <= ERROR
    assert [first_verdict(0.7, dice)[0] for _ in range(100)].count("after") >= 98
    assert [first_verdict(0.3, dice)[0] for _ in range(100)].count("before") >= 98


def test_how_many_more_votes_is_where_the_verdict_comes() -> None:
    """If they go on as they went, there is a verdict then and not a vote before."""
    counted = Tally(after=30, before=16, ties=4, both_bad=0)
    assert counted.verdict is None
    more = counted.votes_needed
    assert more
    weights = accumulate([1 + (more - 1) / 50, 1 / 50])
    short, enough = (log_bayes_factor(30 * weight, 16 * weight) for weight in weights)
    assert short < VERDICT_THRESHOLD <= enough
    assert f"No verdict yet: about {more} more votes" in counted.sentences()[1]


def test_the_tally_is_told_in_words() -> None:
    """What was preferred, how sure that is, and whether it is enough."""
    assert (
        Tally(32, 18, 0, 0)
        .sentences()[0]
        .startswith(
            "After was preferred in 64% of 50 blind votes (95% interval 50% to 76%): 32 for after, 18 for before"
        )
    )
    assert Tally(0, 12, 0, 0).sentences()[1].startswith("Verdict: before is better.")
    assert Tally(5, 5, 0, 0).sentences()[1] == "No verdict yet, and none in sight: so far the two are close."
    assert Tally(0, 0, 0, 0).sentences() == ["There is no vote yet."]
