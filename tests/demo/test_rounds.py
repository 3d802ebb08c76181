"""Votes on a first round make a better second one, measured on prompts that nobody trained or voted on."""

from __future__ import annotations

import pytest

from benchmarks.rounds import two_rounds
from dpo_hub.demo.shop import USES


@pytest.mark.full
def test_a_second_round_on_votes_improves_or_holds() -> None:
    """The first wins beyond doubt, the second loses nothing, and its adapter alone gives the logits of training."""
    came = two_rounds(USES["conciseness"], 0.6, 100)
    base, first, second = came["shares"].values()
    assert base + 0.2 < first <= second + 0.03
    assert came["win_rate"]["round one"][1] > 0.5
    assert came["win_rate"]["round two"][2] > 0.5
    assert came["same_logits"]
    assert came["votes"] >= came["pairs"] > 20
