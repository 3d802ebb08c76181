from __future__ import annotations

from typing import Any

import pytest

from dpo_hub.errors import PreferencesError
from dpo_hub.preferences.layouts.mapping import PARTS, dig, parse_mapping
from dpo_hub.preferences.layouts.messages import IMAGE
from dpo_hub.preferences.layouts.verdicts import TIE
from tests.preferences.layouts.conftest import Read, Texts, texts

ROW = {"ask": "p", "x": "x", "y": "y", "verdict": "A"}
X, Y = ("p", "x", "y"), ("p", "y", "x")


def test_a_mapping_as_it_is_typed() -> None:
    """Spaces do not matter, and only the first equals sign parts."""
    assert parse_mapping("prompt = ask, chosen=a=b,") == {"prompt": "ask", "chosen": "a=b"}


@pytest.mark.parametrize("written", ["", ",", "prompt", "prompt=", "=ask", "prompt=ask,chosen", "prompt=a,prompt=b"])
def test_a_mapping_that_is_none(written: str) -> None:
    """The complaint shows the form."""
    with pytest.raises(PreferencesError, match="is not of the form prompt=COLUMN,chosen=COLUMN,rejected=COLUMN"):
        parse_mapping(written)


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ("prompt=ask,chosen=x,rejected=y", X),
        ("prompt=ask,chosen=y,rejected=x", Y),
        ("prompt=ASK,chosen= X ,rejected=y", X),
        ("prompt=ask,a=x,b=y", X),
        ("prompt=ask,a=y,b=x", Y),
        ("prompt=ask,a=x,b=y,winner=verdict", X),
        ("prompt=ask,a=x,b=y,winner=verdict,a_wins=A", X),
        ("prompt=ask,a=x,b=y,winner=verdict,a_wins=B", Y),
    ],
)
def test_columns_are_what_the_mapping_says(read: Read, mapping: str, expected: Texts) -> None:
    """The mapping decides, whatever the names suggest."""
    assert texts(read(ROW, mapping=parse_mapping(mapping))) == [expected]


def test_a_mapping_may_turn_a_file_around(read: Read) -> None:
    """Chosen and rejected may be the wrong way round in the file, scores or not."""
    row = {"prompt": "p", "chosen": "y", "rejected": "x", "score_chosen": 9, "score_rejected": 1}
    assert texts(read(row, mapping={"chosen": "rejected", "rejected": "chosen"})) == [X]


def test_what_a_mapping_does_not_name_is_found(read: Read) -> None:
    """Only what is not found by itself needs to be said."""
    row = {"ask": "p", "chosen": "x", "rejected": "y", "style": "S"}
    assert texts(read(row, mapping={"prompt": "ask", "system": "style"})) == [("system: S\n\nuser: p", "x", "y")]


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"prompt": "d.q", "chosen": "d.answers.0.text", "rejected": "d.answers.1.text"}, X),
        ({"prompt": "d.q", "chosen": "d.answers.-1.text", "rejected": "d.answers.0.text"}, Y),
        ({"prompt": "d.q", "a": "d.answers.0.text", "b": "d.answers.1.text", "winner": "d.best"}, Y),
        ({"prompt": "d.q", "chosen": "dotted.name", "rejected": "d.answers.0.text"}, ("p", "z", "x")),
    ],
)
def test_paths_into_nested_cells(read: Read, mapping: dict[str, str], expected: Texts) -> None:
    """Names and places are joined by dots; a column whose own name has a dot comes first."""
    row = {"d": {"q": "p", "answers": [{"text": "x"}, {"text": "y"}], "best": "b"}, "dotted.name": "z"}
    preferences = read(row, row, mapping=mapping)
    assert texts(preferences) == [expected] * 2
    assert "no " in next(iter(read(row, {"d": 5}, mapping=mapping).left_out), "")


@pytest.mark.parametrize(
    ("path", "cell"),
    [
        ("a.b", 1),
        ("l.0", "x"),
        ("l.-1", "y"),
        ("l.2", None),
        ("l.-3", None),
        ("l.--1", None),
        ("l.²", None),
        ("l.1e0", None),
        ("a.c", None),
        ("a.b.c", None),
        ("none", None),
        ("d.o.t", 2),
        ("", None),
    ],
)
def test_dig(path: str, cell: Any) -> None:
    """What is not there is nothing, however odd the path."""
    assert dig({"a": {"b": 1}, "l": ["x", "y"], "d.o.t": 2}, path) == cell


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        ({"choosen": "x"}, "The mapping names 'choosen', which is no part. The parts are prompt, chosen, rejected"),
        (
            {"chosen": "xx"},
            "The mapping names the column 'xx', which is not there; there are 'ask', 'x', 'y', 'verdict'",
        ),
        ({"chosen": "x.0"}, "The mapping names the column 'x.0', which is not there"),
        ({"prompt": "ask", "chosen": "x"}, "has to say which column is rejected: the worse reply. Add rejected=COLUMN"),
        ({"prompt": "ask", "rejected": "x"}, "has to say which column is chosen"),
        ({"winner": "verdict"}, "has to say which column is a: the first of two answers"),
        ({"a": "x", "winner": "verdict"}, "has to say which column is b"),
        ({"a": "x", "b": "x"}, "The mapping has 'x' as both of the answers"),
        ({"rating": "verdict"}, "has to say which column is answer"),
        ({"prompt": "ask", "a": "x", "b": "y", "winner": "ask"}, "a verdict that is not known ('p')"),
        ({"a": "x", "b": "y", "winner": "verdict"}, "no prompt"),
    ],
)
def test_a_mapping_that_does_not_fit(read: Read, mapping: dict[str, str], told: str) -> None:
    """One sentence says what is wrong, and what to say instead."""
    with pytest.raises(PreferencesError) as raised:
        read(ROW, mapping=mapping)
    assert told in str(raised.value)


def test_the_verdict_that_means_a(read: Read) -> None:
    """It may be any word or number; ties are left out, and the other value is for b."""
    rows = [{**ROW, "verdict": value} for value in (1.0, 0.0, "tie", None)]
    mapping = {"prompt": "ask", "a": "x", "b": "y", "winner": "verdict", "a_wins": "1"}
    preferences = read(*rows, mapping=mapping)
    assert texts(preferences) == [X, Y]
    assert preferences.left_out == {TIE: [3], "no verdict": [4]}
    assert preferences.columns["winner"] == "verdict (1 is x)"


@pytest.mark.parametrize(
    ("values", "a_wins", "told"),
    [
        (["A", "B"], "typo", "has several values other than 'typo'"),
        ([0, 1, 2], "1", "has several values other than '1'"),
        ([1], None, "does not say which value stands for 'x'. Add a_wins=VALUE."),
    ],
)
def test_a_verdict_that_the_mapping_leaves_open(read: Read, values: list[Any], a_wins: str | None, told: str) -> None:
    """A slip in a_wins would turn every pair around; it is asked about instead."""
    mapping = {"prompt": "ask", "a": "x", "b": "y", "winner": "verdict"} | ({"a_wins": a_wins} if a_wins else {})
    with pytest.raises(PreferencesError) as raised:
        read(*({**ROW, "verdict": value} for value in values), mapping=mapping)
    assert told in str(raised.value)


def test_answers_whose_names_are_numbered_the_other_way(read: Read) -> None:
    """Where a is `response_1` and b `response_0`, a 1 may mean either."""
    rows = [{"prompt": "p", "response_0": "x", "response_1": "y", "label": value} for value in (0, 1)]
    with pytest.raises(PreferencesError, match="does not say which value stands for 'response_1'"):
        read(*rows, mapping={"a": "response_1", "b": "response_0"})
    assert texts(read(*rows, mapping={"a": "response_0", "b": "response_1"})) == [X, Y]


def test_a_verdict_may_name_the_columns(read: Read) -> None:
    """Numbers in the names of the answers are not taken for verdicts."""
    rows = [{"prompt": "p", "model 4": "x", "model 5": "y", "best": name} for name in ("model 4", "model 5")]
    assert texts(read(*rows, mapping={"a": "model 4", "b": "model 5"})) == [X, Y]


def test_a_mapping_for_a_comparison_keeps_the_rest(read: Read) -> None:
    """What goes with the prompt is read there as well."""
    row = {"prompt": "p", "response_a": "x", "response_b": "y", "winner": "b", "style": "S"}
    assert texts(read(row, mapping={"a": "response_a", "system": "style"})) == [("system: S\n\nuser: p", "y", "x")]


@pytest.mark.parametrize(("part", "good", "bad"), [("rating", 5, "4,5"), ("rank", 1, 2), ("thumb", "👍", "👎")])
def test_one_answer_a_row(read: Read, part: str, good: Any, bad: Any) -> None:
    """Ratings, ranks and thumbs may be in columns of any name."""
    rows = [{"ask": "p", "said": "y", "n": bad}, {"ask": "p", "said": "x", "n": good}]
    assert texts(read(*rows, mapping={"prompt": "ask", "answer": "said", part: "n"})) == [X]


def test_images_are_left_out_under_a_mapping_too(read: Read) -> None:
    """Naming the columns of text does not make a row with an image one of text."""
    rows = [{"ask": "p", "x": "x", "y": "y", "image": image} for image in (None, {"bytes": "…"})]
    preferences = read(*rows, mapping={"prompt": "ask", "chosen": "x", "rejected": "y"})
    assert preferences.left_out == {IMAGE: [2]}


def test_every_part_is_told() -> None:
    """Whoever asks for help is told what each part is."""
    assert all(PARTS.values())
    assert {"prompt", "chosen", "rejected", "a", "b", "winner", "a_wins"} <= PARTS.keys()


def test_the_verdict_that_means_b(read: Read) -> None:
    """Where both are told, any other value is left out, however often it comes."""
    rows = [{**ROW, "verdict": value} for value in ("red", "blue", "green", "tie")]
    mapping = {"prompt": "ask", "a": "x", "b": "y", "winner": "verdict", "a_wins": "red", "b_wins": "blue"}
    preferences = read(*rows, mapping=mapping)
    assert texts(preferences) == [X, Y]
    assert preferences.left_out == {"a verdict that is not known ('green')": [3], TIE: [4]}


@pytest.mark.parametrize("wins", [{"b_wins": "A"}, {"a_wins": "A", "b_wins": " a "}])
def test_the_verdict_that_means_b_alone(read: Read, wins: dict[str, str]) -> None:
    """It takes another one that means a."""
    with pytest.raises(PreferencesError, match="Add a_wins=VALUE"):
        read(ROW, mapping={"prompt": "ask", "a": "x", "b": "y", "winner": "verdict", **wins})
