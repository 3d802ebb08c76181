from __future__ import annotations

from pathlib import Path

import pytest

from dpo_hub.comparison.duet import Duet
from dpo_hub.errors import RunError
from dpo_hub.preferences import read_preferences
from dpo_hub.recipe import Recipe
from dpo_hub.run import Run
from dpo_hub.state import State
from dpo_hub.training.train import train


@pytest.fixture
def run(few_pairs: Path) -> Run:
    run = Run.create(read_preferences(few_pairs), Recipe.for_model(epochs=4, sft_weight=0))
    train(run)
    run.set_state(State("finished"))
    return run


def test_before_is_the_base_model_and_after_the_policy(run: Run) -> None:
    """Both sides answer in the order asked, the same again from the same seed, and the adapter makes a difference."""
    duet = Duet.open(run)
    prompts = [pair.prompt for pair in run.pairs("held_out")]
    replies = duet.replies(prompts, temperature=0, max_new_tokens=40)
    assert duet.replies(prompts[:1], temperature=0, max_new_tokens=40) == replies[:1]
    assert [both.before for both in replies] != [both.after for both in replies]
    assert all(both.before and both.after for both in replies)
    assert duet.replies(prompts, seed=3) == duet.replies(prompts, seed=3) != duet.replies(prompts, seed=4)


def test_without_an_adapter_both_sides_say_the_same(run: Run) -> None:
    """With the adapter's weights at zero, before and after draw the same words from the same seed."""
    duet = Duet.open(run)
    for name, weights in duet.model.named_parameters():
        if "lora_B" in name:
            weights.data.zero_()
    replies = duet.replies([pair.prompt for pair in run.pairs("held_out")], seed=1)
    assert all(both.before == both.after for both in replies)


def test_a_run_that_has_not_finished_is_refused(few_pairs: Path) -> None:
    """There is nothing to compare before training ends."""
    with pytest.raises(RunError, match="not finished"):
        Duet.open(Run.create(read_preferences(few_pairs), Recipe.for_model()))
