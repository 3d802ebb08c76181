from __future__ import annotations

from dataclasses import replace

import pytest

from dpo_hub.comparison.accuracy import accuracy
from dpo_hub.comparison.lens import Lens
from dpo_hub.errors import ModelError
from dpo_hub.runs.run import Run


@pytest.fixture(scope="module")
def lens(trained_run: Run) -> Lens:
    return Lens.open(trained_run)


def test_held_out_pairs_have_the_figures_of_the_runs_own_evaluation(lens: Lens, trained_run: Run) -> None:
    """What TRL measured at the end of training is what the lens measures from the saved adapter."""
    measured = accuracy(lens, trained_run.pairs("held_out"), trained_run.pairs("train"))
    own = trained_run.evaluation
    names = ("pairs", "margin", "reward_accuracy", "chosen_reward", "rejected_reward")
    assert {name: getattr(measured, name) for name in names} == pytest.approx({n: own[n] for n in names}, abs=1e-4)
    assert measured.margin > 0.01
    low, high = measured.interval
    assert low <= measured.reward_accuracy <= high
    assert (measured.trained_on, measured.ties, measured.cut, measured.left_out) == (0, 0, 0, {})


def test_prompts_that_were_trained_on_are_told(lens: Lens, trained_run: Run) -> None:
    """A prompt that differs from one trained on by case and punctuation only counts as the same."""
    train, held_out = trained_run.pairs("train"), trained_run.pairs("held_out")
    shouted = [{"role": "user", "content": str(train[0].prompt[0]["content"]).upper() + "!"}]
    measured = accuracy(lens, [*held_out, train[1], replace(train[0], prompt=shouted)], train)
    assert measured.trained_on == 2


def test_ties_and_what_is_cut_or_dropped_are_counted(lens: Lens, trained_run: Run) -> None:
    """Replies with the same reward are ties and no success; a prompt that fills the length is left out."""
    pair = trained_run.pairs("held_out")[0]
    asked = lens.tokenizer.apply_chat_template(list(pair.prompt), add_generation_prompt=True, return_dict=False)
    short = replace(lens, recipe=replace(lens.recipe, max_length=len(asked) + 3))
    alike = [{"role": "assistant", "content": pair.chosen[0]["content"] + " And more."}]
    long = replace(pair, prompt=[{"role": "user", "content": "Hi? " * 60}])
    measured = accuracy(short, [replace(pair, rejected=alike), long], [])
    assert (measured.pairs, measured.ties, measured.reward_accuracy, measured.cut) == (1, 1, 0, 1)
    assert measured.left_out == {"a prompt that fills max_length": 1}
    with pytest.raises(ModelError, match="fills max_length"):
        accuracy(short, [long], [])
