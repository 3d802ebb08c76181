from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_hub.preferences.layouts.messages import Unusable
from dpo_hub.preferences.layouts.verdicts import (
    TIE,
    UNLABELLED,
    DirectionUnknown,
    Scale,
    is_rating,
    is_thumb,
    is_up,
    is_verdict,
    rating_of,
    shown,
)

FIRST = [
    "A",
    "a",
    " A. ",
    "(a)",
    "[[A]]",
    "model_a",
    "left",
    "Left",
    "first",
    "the first one",
    "one",
    "Response A is better",
]
SECOND = ["B", "b", "B!", "option b", "[[B]]", "model_b", "right", "RIGHT", "second", "the second one", "two", "B wins"]
TIES = [
    "tie",
    "Tie",
    "TIE (bothbad)",
    "tie (both bad)",
    "tie_bothbad",
    "both",
    "Both are good",
    "equal",
    "equally good",
]
MORE_TIES = ["same", "draw", "neither", "none", "no preference", "nopreference", "bothbad"]
BLANK: list[Any] = ["", "  ", None, float("nan"), "null", "skip", "N/A"]
UNKNOWN: list[Any] = ["unsure", "A or B", "A is worse", "not A", "A>B", "gpt-4", True, False, "maybe 1", "7", [1]]


@pytest.mark.parametrize(("word", "first"), [*((word, True) for word in FIRST), *((word, False) for word in SECOND)])
def test_words_for_either_side(word: str, first: bool) -> None:
    """However it is put, `A` is the first answer and `B` the second."""
    assert Scale().first_wins(word) is first
    assert is_verdict(word)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        *((word, TIE) for word in [*TIES, *MORE_TIES]),
        *((word, UNLABELLED) for word in BLANK),
        *((word, "a verdict that is not known") for word in UNKNOWN),
    ],
)
@pytest.mark.parametrize("scale", [Scale(), Scale(a_wins="gpt", b_wins="claude")])
def test_words_for_neither_side(word: Any, reason: str, scale: Scale) -> None:
    """A tie, no verdict and an unknown word are told apart, and none of them is taken for a side."""
    with pytest.raises(Unusable) as raised:
        scale.first_wins(word)
    assert str(raised.value).startswith(reason)


@pytest.mark.parametrize(
    ("values", "side", "base"),
    [
        ([0, 1], "0", 0),
        ([1], "0", 0),
        (["1", "0"], "0", 0),
        (["model_1"], "0", 0),
        ([1, 2], "1", 1),
        ([2], "1", 1),
        (["1.0", 2.0], "1", 1),
        (["model_1"], "1", 1),
        (["Response 2 is better", "tie"], "1", 1),
        (["tie", None], "1", 1),
        ([1, 2], "a", 1),
        ([0, 1], "a", 0),
        ([0, 1], "left", 0),
        (["a", "tie", None], "a", None),
        ([True, False], "a", None),
    ],
)
def test_what_numbers_stand_for(values: list[Any], side: str, base: int | None) -> None:
    """Numbers that come in pairs, or that the columns are named by, tell which is the first answer."""
    assert Scale.of(values, side) == Scale(base)


@pytest.mark.parametrize(
    ("values", "side"),
    [
        ([1], "a"),
        ([0], "a"),
        (["1"], "a"),
        (["model_1"], "a"),
        (["+1"], "a"),
        ([-1, 1], "a"),
        ([0, 1, 2], "a"),
        ([1, 2, 3], "a"),
        ([1, 2, 3, 4, 5], "a"),
        ([3], "a"),
        ([1], "1"),
        ([0, 1], "1"),
        ([0, 1, 2], "1"),
        ([1, 2], "0"),
        ([0, 1, 2], "0"),
        ([0, 1], ""),
    ],
)
def test_numbers_that_leave_the_direction_open(values: list[Any], side: str) -> None:
    """One number, three of them, or numbers that do not fit the columns are no answer."""
    assert Scale.of(values, side) is None


def test_numbers_that_turn_out_to_mean_something_else() -> None:
    """A number that comes late and fits no more is a question, not a row to leave out."""
    assert [Scale(1).first_wins(value) for value in (1, "2", 1.0, "model_2")] == [True, False, True, False]
    for scale, late in ((Scale(1), 0), (Scale(1), "3"), (Scale(0), 2), (Scale(0), -1)):
        with pytest.raises(DirectionUnknown, match="which one is a tie is not known"):
            scale.first_wins(late)


def test_numbers_where_there_were_only_words() -> None:
    """A number is not read where the first rows showed none."""
    with pytest.raises(Unusable, match="a verdict that is not known"):
        Scale().first_wins(1)


@pytest.mark.parametrize(
    ("a_wins", "values", "expected"),
    [
        ("gpt", ["gpt", "claude", "tie", None], Scale(a_wins="gpt", b_wins="claude")),
        ("1", [1.0, 0.0], Scale(a_wins="1", b_wins="0.0")),
        ("true", [True, False], Scale(a_wins="true", b_wins="False")),
        ("A", ["a", "a"], Scale(a_wins="A")),
        ("A", ["B"], Scale(a_wins="A", b_wins="B")),
        ("typo", ["A", "B"], None),
        ("1", [0, 1, 2], None),
        ("A", ["A", "B", "unsure"], None),
    ],
)
def test_a_value_that_is_said_to_be_for_the_first(a_wins: str, values: list[Any], expected: Scale | None) -> None:
    """Beside it there may be one other value; several leave open which one is for the second."""
    assert Scale.where(a_wins, values) == expected


def test_a_value_that_is_said_to_be_for_the_first_wins() -> None:
    """Case, spaces and `.0` make no difference, and a third value is left out."""
    scale = Scale(a_wins="1", b_wins="0")
    assert [scale.first_wins(value) for value in (1, " 1 ", 1.0, 0, "0.0")] == [True, True, True, False, False]
    with pytest.raises(Unusable, match="a verdict that is not known"):
        scale.first_wins(2)
    assert Scale(a_wins="A").first_wins("whatever") is False


def test_the_scale_is_told() -> None:
    """Where numbers stand for answers, people see which is which."""
    assert Scale(1).describe("label", "x") == "label (1 is x)"
    assert Scale(0).describe("label", "x") == "label (0 is x)"
    assert Scale(a_wins="gpt").describe("label", "x") == "label (gpt is x)"
    assert Scale().describe("label", "x") == "label"


@pytest.mark.parametrize(
    "value", [True, "TRUE", 1, "1", 1.0, "+1", "up", "Thumbs Up", "thumbs_up", "👍", "👍️", "👍🏽", "good"]
)
def test_thumbs_up(value: Any) -> None:
    """Up is up in words, numbers and emoji of any shade."""
    assert is_thumb(value)
    assert is_up(value) is True


@pytest.mark.parametrize(
    "value", [False, "false", 0, "0", 0.0, -1, "-1", "down", "thumbs-down", "👎", "👎🏿", "bad", "Dislike"]
)
def test_thumbs_down(value: Any) -> None:
    """Down is down in words, numbers and emoji of any shade."""
    assert is_thumb(value)
    assert is_up(value) is False


@pytest.mark.parametrize(("value", "reason"), [(2, "neither up nor down (2)"), ("meh", "('meh')"), ("", UNLABELLED)])
def test_no_thumb(value: Any, reason: str) -> None:
    """What is neither up nor down is left out."""
    assert not is_thumb(value)
    with pytest.raises(Unusable) as raised:
        is_up(value)
    assert reason.replace("(2)", "('2')") in str(raised.value)


@pytest.mark.parametrize(
    ("value", "number"), [(4, 4.0), ("4,5", 4.5), (" 4.5 ", 4.5), ("-1", -1.0), (7.25, 7.25), ("1e2", 100.0)]
)
def test_ratings_are_numbers(value: Any, number: float) -> None:
    """A decimal comma is as good as a point."""
    assert rating_of(value) == number
    assert is_rating(value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no rating"),
        (" ", "no rating"),
        ("4/5", "a rating that is no number ('4/5')"),
        ("n/a", "a rating that is no number ('n/a')"),
        (float("nan"), "a rating that is no number"),
        ([4], "a rating that is no number"),
        (True, "a rating that is no number"),
    ],
)
def test_what_is_no_rating(value: Any, reason: str) -> None:
    """The reason says what stands there."""
    assert not is_rating(value)
    with pytest.raises(Unusable) as raised:
        rating_of(value)
    assert str(raised.value).startswith(reason)


@given(st.text(min_size=21, max_size=60) | st.integers(10**40, 10**50) | st.lists(st.integers(), min_size=20))
def test_reasons_are_short(value: Any) -> None:
    """A long value is not repeated, whatever it is read as; comments in the wrong column make one reason, not many."""
    reasons = set()
    for judge in (Scale().first_wins, is_up, rating_of):
        try:
            judge(value)
        except Unusable as reason:
            reasons.add(str(reason))
    allowed = {TIE, UNLABELLED, "a verdict that is not known", "a label that is neither up nor down"}
    assert reasons <= allowed | {"a rating that is no number", "no rating"}
    assert shown(value) == ""
    assert shown("meh") == " ('meh')"


@pytest.mark.parametrize(
    ("text", "number"), [("1,234,567", 1234567), ("1,234.5", 1234.5), ("4,5", 4.5), ("12,34", 12.34)]
)
def test_a_comma_is_read_where_it_can_mean_one_thing(text: str, number: float) -> None:
    """Several groups of three are thousands, other commas decimal marks."""
    assert rating_of(text) == number


def test_a_comma_that_may_mean_two_things_is_not_read() -> None:
    """1,234 is a thousand or a little more than one, and the order of two answers hangs on it."""
    with pytest.raises(Unusable, match="decimal mark or one of thousands"):
        rating_of("1,234")
