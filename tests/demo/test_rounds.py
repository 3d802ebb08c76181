"""Votes on a first round make a better second one, measured on prompts that nobody trained or voted on."""

from __future__ import annotations

from benchmarks.rounds import two_rounds
from dpo_hub.demo.shop import USES


def test_a_second_round_on_votes_improves_on_a_short_first_one() -> None:
    """It wins beyond doubt against the first, and its adapter alone gives the logits that training ended with."""
    came = two_rounds(USES["conciseness"], 0.4, 100)
    base, first, second = came["shares"].values()
    assert base < first < second
    assert all(low > 0.5 for _, low, _ in came["win_rate"].values())
    assert came["same_logits"]
    assert came["votes"] >= came["pairs"] > 20
