"""The judge of words: what it learns from pairs, how far it is to be believed, and what it says of replies."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dpo_hub.comparison.likeness import StyleClassifier, features
from dpo_hub.demo import FILES
from dpo_hub.preferences import PreferencePair, read_preferences, split_pairs, text_of


def pair(chosen: str, rejected: str, prompt: str = "Where is my order?") -> PreferencePair:
    ask, good, bad = (
        [{"role": role, "content": text}]
        for role, text in (("user", prompt), ("assistant", chosen), ("assistant", rejected))
    )
    return PreferencePair(ask, good, bad, 2)


def test_words_and_neighbours_are_features_in_any_script() -> None:
    """Case is none, punctuation marks are words, and so is each character of a script without spaces."""
    assert features("Gladly! gladly!") == {"gladly", "!", "gladly !", "! gladly"}
    assert features("好的。") == {"好", "的", "。", "好 的", "的 。"}
    assert features(" \n") == set()


def test_what_only_chosen_replies_say_is_like_them() -> None:
    """What both sides have says nothing, and what nobody has said before is not counted."""
    judge = StyleClassifier.learn([pair("Gladly, it left today.", "It left today.")] * 3)
    assert judge.odds["gladly"] > 0 == judge.odds["today"]
    assert judge.score("gladly") == judge.score("Gladly xyzzy") > judge.score("it left today .") == judge.score("") == 0


def test_length_alone_does_not_decide() -> None:
    """Saying it twice is not more like the chosen replies than saying it once."""
    judge = StyleClassifier.learn([pair("Gladly, dear friend.", "No.")])
    assert judge.score("Gladly, dear friend. " * 9) == judge.score("Gladly, dear friend.") > 0


def test_each_prompt_has_a_middle_of_its_own() -> None:
    """What the prompt is about moves all its replies, and does not count as manner."""
    judge = StyleClassifier.learn(
        [pair("Tea, gladly!", "Tea."), pair("Tea, at once!", "Tea, perhaps."), pair("Soup!", "Soup.")]
    )
    tea = [pair("Tea, gladly!", "Tea.")]
    assert judge.is_like_chosen("Tea, at once!", tea)
    assert not judge.is_like_chosen("Tea, perhaps.", tea)


def test_it_is_right_about_manner_and_knows_where_it_is_not() -> None:
    """Warm replies are known by their words; whether a refusal was due, which the prompt decides, is not."""
    right = {}
    for name in ("tone", "safety"):
        pairs = read_preferences(FILES / f"{name}.csv").pairs
        splits = split_pairs(pairs, 0.2, seed=0)
        trained, held_out = (
            [one for one, of in zip(pairs, splits, strict=True) if of == split] for split in ("train", "held_out")
        )
        judge = StyleClassifier.learn(trained)
        right[name] = judge.accuracy(held_out)
        if name == "tone":
            assert all(judge.is_like_chosen(text_of(one.chosen), [one]) for one in held_out)
            assert not any(judge.is_like_chosen(text_of(one.rejected), [one]) for one in held_out)
    assert right["tone"] == 1
    assert right["safety"] < 0.75


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), min_size=1, max_size=8))
def test_with_the_sides_exchanged_it_says_the_opposite(texts: list[tuple[str, str]]) -> None:
    """Whatever the texts are: nothing favours a side by itself."""
    judge = StyleClassifier.learn([pair(*both) for both in texts])
    other = StyleClassifier.learn([pair(*both[::-1]) for both in texts])
    for text in (text for both in texts for text in both):
        assert abs(judge.score(text) + other.score(text)) < 1e-12
    assert judge.accuracy([pair(texts[0][0], texts[0][0])]) == 0.5
