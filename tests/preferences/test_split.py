from __future__ import annotations

import pytest

from dpo_hub.errors import PreferencesError
from dpo_hub.preferences import PreferencePair, split_pairs


def pair(prompt: str, row: int = 0) -> PreferencePair:
    return PreferencePair(
        [{"role": "user", "content": prompt}],
        [{"role": "assistant", "content": f"good {row}"}],
        [{"role": "assistant", "content": "bad"}],
        row,
    )


def test_no_prompt_is_on_both_sides() -> None:
    """Pairs that ask the same thing stay together, and each has a side."""
    pairs = [pair(f"prompt {row % 30}", row) for row in range(100)]
    splits = split_pairs(pairs, 0.2, seed=1)
    asked = {
        side: {p.prompt_key for p, split in zip(pairs, splits, strict=True) if split == side} for side in set(splits)
    }
    assert asked.keys() == {"train", "held_out"}
    assert not asked["train"] & asked["held_out"]
    assert len(asked["held_out"]) == 6


def test_prompts_that_differ_in_case_and_punctuation_stay_together() -> None:
    """A prompt typed a little otherwise would be measured on what was trained."""
    pairs = [pair(text.format(n)) for n in range(40) for text in ("Where is no {}?", " where IS no {} ")]
    splits = split_pairs(pairs, 0.5, seed=3)
    assert splits[::2] == splits[1::2]
    assert len(set(splits)) == 2


def test_the_split_follows_from_the_seed() -> None:
    """The same seed splits the same way, another seed another way."""
    pairs = [pair(f"prompt {row}", row) for row in range(100)]
    assert split_pairs(pairs, 0.1, seed=1) == split_pairs(pairs, 0.1, seed=1)
    assert split_pairs(pairs, 0.1, seed=1) != split_pairs(pairs, 0.1, seed=2)


@pytest.mark.parametrize("prompts", [[], ["a"], ["a", "a"]])
def test_too_few_prompts_are_refused(prompts: list[str]) -> None:
    """With fewer than two prompts there is nothing to measure with."""
    with pytest.raises(PreferencesError, match="at least two prompts"):
        split_pairs([pair(prompt, row) for row, prompt in enumerate(prompts)], 0.1, seed=0)


def test_two_prompts_give_one_of_each() -> None:
    """Both sides always have a prompt."""
    assert sorted(split_pairs([pair("a"), pair("b")], 0.9, seed=0)) == ["held_out", "train"]
