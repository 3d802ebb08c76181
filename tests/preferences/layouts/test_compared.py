from __future__ import annotations

import json
from typing import Any

import pytest

from dpo_hub.errors import PreferencesError
from dpo_hub.preferences.layouts import recognise
from dpo_hub.preferences.layouts.columns import Columns
from dpo_hub.preferences.layouts.verdicts import TIE, UNLABELLED, DirectionUnknown
from tests.preferences.layouts.conftest import Read, chat, texts

AB = {"prompt": "p", "response_a": "x", "response_b": "y"}
X, Y = ("p", "x", "y"), ("p", "y", "x")


@pytest.mark.parametrize(
    "verdict", "winner preference label choice vote better pref chosen result better_response".split()
)
@pytest.mark.parametrize(("a", "b"), [("a", "b"), ("A", "B"), (1, 2), ("1", "2"), (0, 1), ("model_a", "model_b")])
def test_two_answers_and_a_verdict(read: Read, verdict: str, a: Any, b: Any) -> None:
    """The verdict may stand in any column that is called so, in any of its spellings."""
    preferences = read({**AB, verdict: a}, {**AB, verdict: b}, {**AB, verdict: "tie"}, {**AB, verdict: ""})
    assert texts(preferences) == [X, Y]
    assert preferences.left_out == {TIE: [3], UNLABELLED: [4]}
    assert verdict in preferences.columns["winner"]


@pytest.mark.parametrize(
    ("sides", "verdicts"),
    [
        (("response_0", "response_1"), (0, 1)),
        (("answer1", "answer2"), (1, 2)),
        (("output_1", "output_2"), ("output_1", "output_2")),
        (("Answer A", "Answer B"), ("Answer A", "Answer B")),
        (("left_answer", "right_answer"), ("left", "right")),
        (("response_a", "response_b"), ("Response A is better", "Response B is better")),
        (("outputA", "outputB"), ("A", "B")),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_order_of_columns_does_not_matter(
    read: Read, sides: tuple[str, str], verdicts: tuple[Any, Any], turned: bool
) -> None:
    """Which answer is meant is told by its name, wherever it stands."""
    cells = dict(zip((*sides, "prompt"), ("x", "y", "p"), strict=True))
    row = dict(reversed(cells.items())) if turned else cells
    assert texts(read(*({**row, "winner": verdict} for verdict in verdicts))) == [X, Y]


def test_what_numbers_were_taken_for_is_told(read: Read) -> None:
    """People can check which number stands for which answer."""
    assert read({**AB, "label": 1}, {**AB, "label": 2}).columns["winner"] == "label (1 is response_a)"


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ([{**AB, "label": 1}] * 200 + [{**AB, "label": 0}], "(1)"),
        ([{**AB, "label": 0}], "(0)"),
        ([{**AB, "label": number} for number in (0, 1, 2)], "(0, 1, 2)"),
        ([{**AB, "label": number} for number in range(1, 6)], "(1, 2, 3, 4, 5)"),
        ([{"prompt": "p", "response_1": "x", "response_2": "y", "label": 1}], "(1)"),
    ],
)
def test_a_direction_that_cannot_be_known_is_asked(read: Read, rows: list[dict[str, Any]], shown: str) -> None:
    """Numbers that may mean either are shown, with how to say what they mean."""
    with pytest.raises(PreferencesError) as raised:
        read(*rows)
    assert f"'label' {shown} does not say which value stands for which" in str(raised.value)
    assert f"--map winner=label,a_wins={shown[1]}" in str(raised.value)


def test_a_direction_that_changes_its_mind_is_asked(read: Read) -> None:
    """A third number after the first rows refuses the file, for the others may have been misread."""
    with pytest.raises(PreferencesError, match="The verdicts are 1, 2 and 0"):
        read(*[{**AB, "label": 1}, {**AB, "label": 2}] * 100, {**AB, "label": 0})


@pytest.mark.parametrize(
    ("names", "example"),
    [
        (("response_a", "response_b"), "--map chosen=response_a,rejected=response_b"),
        (("Answer A", "Answer B"), "--map 'chosen=Answer A,rejected=Answer B'"),
    ],
)
def test_two_answers_without_a_verdict(read: Read, names: tuple[str, str], example: str) -> None:
    """Both columns are named, and what to type to say which is chosen."""
    with pytest.raises(PreferencesError) as raised:
        read({"prompt": "p", names[0]: "x", names[1]: "y"})
    assert all(repr(name) in str(raised.value) for name in names)
    assert example in str(raised.value)


def test_a_question_shows_little_of_what_it_asks_about() -> None:
    """Long cells in the verdict's column do not fill the screen."""
    rows: list[dict[str, Any]] = [{**AB, "label": value} for value in (1, *("word " * 99 + str(n) for n in range(99)))]
    with pytest.raises(DirectionUnknown) as raised:
        recognise(Columns(rows[0]), rows)
    assert len(str(raised.value)) < 400


def test_arena_conversations(read: Read) -> None:
    """LMSYS has whole conversations; what they share is the prompt."""
    row = {
        "model_a": "m",
        "model_b": "n",
        "conversation_a": chat("p", "x"),
        "conversation_b": chat("p", "y"),
        "turn": 1,
    }
    rows = ({**row, "winner": winner} for winner in ("model_b", "tie (bothbad)", "model_a"))
    preferences = read(*rows)
    assert texts(preferences) == [Y, X]
    assert preferences.left_out == {TIE: [2]}


def test_arena_with_a_column_for_each_winner(read: Read) -> None:
    """One of three columns is 1; turns written as a list of JSON are turns."""

    def row(prompt: Any, x: Any, y: Any, *won: int) -> dict[str, Any]:
        winners = dict(zip(("winner_model_a", "winner_model_b", "winner_tie"), won, strict=True))
        return {"id": 1, "model_a": "m", "prompt": prompt, "response_a": x, "response_b": y, **winners}

    preferences = read(
        row("p", "x", "y", 1, 0, 0),
        row('["p"]', '["x"]', '["y"]', 0, 1, 0),
        row('["p", "q"]', '["x", "z"]', '["x", "y"]', 0, 1, 0),
        row('["p", "q"]', '["x", "z"]', '["y", "z"]', 1, 0, 0),
        row('["p"]', "[null]", '["y"]', 1, 0, 0),
        row("p", "x", "y", 0, 0, 1),
    )
    assert texts(preferences) == [X, Y, ("user: p\n\nassistant: x\n\nuser: q", "y", "z")]
    assert preferences.left_out == {
        "a turn in chosen that is not the assistant's": [4],
        "no chosen": [5],
        TIE: [6],
    }


def test_safe_rlhf(read: Read) -> None:
    """PKU-SafeRLHF has columns about the answers beside them, and two verdicts; the better one counts."""
    row = {
        "response_0_source": "m",
        "response_1_source": "n",
        "prompt": "p",
        "response_0": "x",
        "response_1": "y",
        "is_response_0_safe": True,
        "is_response_1_safe": False,
        "safer_response_id": 0,
    }
    preferences = read({**row, "better_response_id": 1}, {**row, "better_response_id": 0})
    assert texts(preferences) == [Y, X]
    assert preferences.columns["winner"] == "better_response_id (0 is response_0)"


def test_only_one_number_where_the_columns_are_numbered_from_zero(read: Read) -> None:
    """`response_1` is the one that a 1 means, even if no 0 was seen yet."""
    row = {"prompt": "p", "response_0": "x", "response_1": "y", "label": 1}
    assert texts(read(row)) == [Y]


def test_scores_for_both_answers(read: Read) -> None:
    """The higher score wins where there is no verdict."""
    rows = [("4,5", 3), (1, 2), (2, "2.0"), (None, 1)]
    preferences = read(*({**AB, "score_a": a, "score_b": b} for a, b in rows))
    assert texts(preferences) == [X, Y]
    assert preferences.left_out == {TIE: [3], "no rating": [4]}


def test_a_winner_and_a_loser_beside_two_answers_are_no_replies(read: Read) -> None:
    """Where the answers have columns of their own, `winner` names one of them, or a model that is not known."""
    sides = {**AB, "winner": "b", "loser": "a"}
    assert texts(read(sides)) == [Y]
    assert texts(read({**AB, "chosen": "response_a", "rejected": "response_b"})) == [X]
    with pytest.raises(PreferencesError, match="does not say which value stands for which"):
        read({**AB, "winner": "gpt", "loser": "claude"})


def test_replies_count_where_there_are_answers_too(read: Read) -> None:
    """Chosen and rejected say it themselves."""
    assert texts(read({**AB, "chosen": "y", "rejected": "x"})) == [Y]


def test_stanford_shp(read: Read) -> None:
    """A label of 1 means A; anything but 1 and 0 is left out."""
    row = {"history": "p", "human_ref_A": "x", "human_ref_B": "y", "score_A": 9, "score_B": 3}
    preferences = read(*({**row, "labels": label} for label in (0, 1, 1.0, "0", None, 2)))
    assert texts(preferences) == [Y, X, X, Y]
    assert preferences.left_out == {UNLABELLED: [5], "a label that is neither up nor down ('2')": [6]}


def ranking(rank: Any, names: Any = ("response1", "response2"), status: str = "submitted") -> dict[str, Any]:
    return {"user_id": "u", "value": {"rank": rank, "value": list(names)}, "status": status}


@pytest.mark.parametrize(
    ("preference", "expected"),
    [
        ([ranking([1, 2])], X),
        ([ranking([2, 1])], Y),
        ([ranking([1, 2], ("response2", "response1"))], Y),
        ([ranking([1, 2], ("response-2", "response-1"))], Y),
        ([ranking([1, 2]), ranking([2, 1]), ranking([2, 1])], Y),
        ([ranking([1, 2]), ranking([2, 1], status="discarded")], X),
        (json.dumps([ranking([2, 1])]), Y),
    ],
)
def test_argilla_rankings(read: Read, preference: Any, expected: tuple[str, str, str]) -> None:
    """The majority of the annotators decides, by the names in their rankings."""
    assert texts(read({"prompt": "p", "response1": "x", "response2": "y", "preference": preference})) == [expected]


@pytest.mark.parametrize(
    ("preference", "reason"),
    [
        ([ranking([1, 2]), ranking([2, 1])], "annotators who disagree evenly"),
        ([ranking([1, 1])], TIE),
        ([ranking([1, 2], status="discarded")], UNLABELLED),
        ([], UNLABELLED),
        (None, UNLABELLED),
        ([ranking([1, 2, 3], ("a", "b", "c"))], "a ranking that does not rank two responses"),
        ([{"value": 1}], "a ranking that does not rank two responses"),
        ([1], "something other than a list of objects in preference"),
        ([ranking(["x", 2])], "a rating that is no number ('x')"),
    ],
)
def test_argilla_rankings_that_decide_nothing(read: Read, preference: Any, reason: str) -> None:
    """Each is left out with its own reason."""
    row = {"prompt": "p", "response1": "x", "response2": "y"}
    preferences = read({**row, "preference": [ranking([1, 2])]}, {**row, "preference": preference})
    assert preferences.left_out == {reason: [2]}


def selection(side: Any, **more: Any) -> dict[str, Any]:
    return {"result": [{"type": "choices"}, {"type": "pairwise", "value": {"selected": side}}], **more}


@pytest.mark.parametrize("names", [("answer1", "answer2"), ("text1", "text2"), ("Response A", "Response B")])
def test_label_studio(read: Read, names: tuple[str, str]) -> None:
    """Left is the first answer; the answers and the prompt are in `data`."""
    data = {"prompt": "p", names[0]: "x", names[1]: "y"}
    left, right = selection("left"), selection("right")
    annotations = [[right], [left], [left, selection("right", was_cancelled=True)], [left, right, right]]
    preferences = read(*({"id": 1, "data": data, "annotations": given} for given in annotations))
    assert texts(preferences) == [Y, X, X, Y]
    assert preferences.columns["prompt"] == "data.prompt"


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        ([], UNLABELLED),
        ([selection("left"), selection("right")], "annotators who disagree evenly"),
        ([selection(None)], TIE),
        ([{"result": [{"type": "choices"}]}], UNLABELLED),
        ([{"result": 5}], UNLABELLED),
        ([{"result": [5]}], "something other than a list of objects in result"),
        ([5], "something other than a list of objects in annotations"),
    ],
)
def test_label_studio_tasks_that_decide_nothing(read: Read, annotations: Any, reason: str) -> None:
    """A task without a majority is left out and told."""
    task = {"data": {"prompt": "p", "answer1": "x", "answer2": "y"}, "annotations": [selection("left")]}
    assert read(task, {**task, "annotations": annotations}).left_out == {reason: [2]}
    assert read(task, {**task, "data": 5}).left_out == {"no prompt": [2]}


def test_with_one_value_told_a_third_is_a_question(read: Read) -> None:
    """One other value is for the second answer; with two others, one of them may be no verdict at all."""
    rows = [{**AB, "winner": "ours"}] * 201
    mapping = {"winner": "winner", "a_wins": "ours"}
    assert len(read(*rows, {**AB, "winner": "theirs"}, mapping=mapping).pairs) == 202
    with pytest.raises(PreferencesError, match="'broken page' and 'theirs'"):
        read(*rows, {**AB, "winner": "theirs"}, {**AB, "winner": "broken page"}, mapping=mapping)


def test_verdicts_that_cannot_be_read_are_asked_about(read: Read) -> None:
    """Colours say nothing of a and b, and the question shows how to answer it."""
    with pytest.raises(PreferencesError, match="winner=winner,a_wins=blue"):
        read({**AB, "winner": "red"}, {**AB, "winner": "blue"})


def test_a_late_value_may_be_spelled_in_several_ways(read: Read) -> None:
    """0, 0.0 and "0" are one value beside 1."""
    late = [{**AB, "winner": value} for value in (0.0, 0, "0")]
    preferences = read(*[{**AB, "winner": 1}] * 201, *late, mapping={"winner": "winner", "a_wins": "1"})
    assert texts(preferences)[-3:] == [Y] * 3


def test_a_question_about_several_verdicts_asks_for_both(read: Read) -> None:
    """With more than two values, one of them is not enough; what the question shows can be typed."""
    rows = [{**AB, "winner": colour} for colour in ("red", "green", "blue")]
    with pytest.raises(PreferencesError, match="winner=winner,a_wins=blue,b_wins=green"):
        read(*rows)
    mapping = {"winner": "winner", "a_wins": "blue", "b_wins": "green"}
    assert texts(read(*rows, mapping=mapping)) == [Y, X]
