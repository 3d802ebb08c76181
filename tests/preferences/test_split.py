from __future__ import annotations

import pytest

from dpo_hub.errors import PreferencesError
from dpo_hub.preferences import PreferencePair, split_pairs


def pair(prompt: str, row: int) -> PreferencePair:
    return PreferencePair(
        [{"role": "user", "content": prompt}],
        [{"role": "assistant", "content": f"good {row}"}],
        [{"role": "assistant", "content": "bad"}],
        row,
    )


def test_no_prompt_is_on_both_sides() -> None:
    """Pairs that ask the same thing stay together, and nothing is lost."""
    pairs = [pair(f"prompt {row % 30}", row) for row in range(100)]
    train, held_out = split_pairs(pairs, 0.2, seed=1)
    assert not {p.prompt_key for p in train} & {p.prompt_key for p in held_out}
    assert sorted(p.row for p in train + held_out) == list(range(100))
    assert len({p.prompt_key for p in held_out}) == 6


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
    train, held_out = split_pairs([pair("a", 1), pair("b", 2)], 0.9, seed=0)
    assert (len(train), len(held_out)) == (1, 1)
