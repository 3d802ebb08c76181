from __future__ import annotations

from typing import Any

import pytest

from dpo_hub.errors import PreferencesError
from dpo_hub.preferences.layouts.verdicts import TIE, UNLABELLED
from tests.preferences.layouts.conftest import Read, assistant, chat, system, texts, user

FEW = "fewer than two rated answers to a prompt"
ONLY_GOOD, ONLY_BAD = "a prompt with good answers only", "a prompt with bad answers only"


def rated(column: str, *answers: tuple[str, Any], prompt: Any = "p") -> list[dict[str, Any]]:
    return [{"prompt": prompt, "response": text, column: value} for text, value in answers]


@pytest.mark.parametrize("column", ["rating", "score", "Overall Score", "stars"])
@pytest.mark.parametrize("values", [(1, 5, 3), ("1", "5", "3"), ("4,0", "4,5", "4,2"), (0.1, 1.0, 0.5)])
def test_the_best_rated_answer_is_paired_with_each_worse_one(read: Read, column: str, values: tuple[Any, ...]) -> None:
    """Rows of the same prompt belong together, and higher is better."""
    preferences = read(*rated(column, *zip(("b", "g", "c"), values, strict=True)), *rated(column, ("z", 1), prompt="q"))
    assert texts(preferences) == [("p", "g", "b"), ("p", "g", "c")]
    assert [pair.row for pair in preferences.pairs] == [2, 2]
    assert preferences.left_out == {FEW: [4]}


def test_ranks(read: Read) -> None:
    """The lower rank is better, and there may be gaps."""
    assert texts(read(*rated("rank", ("b", 10), ("g", 2), ("c", "5")))) == [("p", "g", "b"), ("p", "g", "c")]


def test_equal_ratings(read: Read) -> None:
    """Answers that are rated alike are no pair, and each of their rows is told."""
    preferences = read(*rated("rating", ("a", 4), ("b", 4)), *rated("rating", ("g", 5), ("b", 4), prompt="q"))
    assert preferences.left_out == {TIE: [1, 2]}
    assert texts(preferences) == [("q", "g", "b")]


def test_rows_without_a_rating_or_an_answer(read: Read) -> None:
    """A few of them do not hide what the column is; each is left out with its reason."""
    rows = [
        *rated("rating", ("g", 5), ("b", 1), ("c", "n/a"), ("d", None), ("", 3)),
        {"prompt": "", "response": "x", "rating": 1},
    ]
    preferences = read(*rows)
    assert texts(preferences) == [("p", "g", "b")]
    assert preferences.left_out == {
        "a rating that is no number ('n/a')": [3],
        "no rating": [4],
        "no answer": [5],
        "no prompt": [6],
    }


@pytest.mark.parametrize("column", ["label", "thumbs", "thumb", "Feedback", "kto_tag", "rating"])
@pytest.mark.parametrize(("up", "down"), [("👍", "👎"), ("up", "down"), ("yes", "no"), ("Good", "Bad")])
def test_thumbs_in_words_and_emoji(read: Read, column: str, up: Any, down: Any) -> None:
    """A good answer is paired with a bad one to the same prompt."""
    assert texts(read(*rated(column, ("b", down), ("g", up)))) == [("p", "g", "b")]


@pytest.mark.parametrize(("up", "down"), [(True, False), (1, 0), ("1", "0"), (1, -1), ("true", "false"), (1.0, 0.0)])
def test_thumbs_in_numbers(read: Read, up: Any, down: Any) -> None:
    """TRL's unpaired rows have true and false, others 1 and 0."""
    rows = [{"prompt": "p", "completion": "b", "label": down}, {"prompt": "p", "completion": "g", "label": up}]
    assert texts(read(*rows)) == [("p", "g", "b")]


def test_unpaired_chats(read: Read) -> None:
    """TRL's unpaired rows may be messages, and ShareGPT's are whole chats."""
    rows = [{"prompt": [user("p")], "completion": [assistant(text)], "label": text == "g"} for text in ("b", "g")]
    assert texts(read(*rows)) == [("p", "g", "b")]
    chats = [
        {
            "conversations": [
                {"from": "system", "value": "S"},
                {"from": "human", "value": "p"},
                {"from": "gpt", "value": t},
            ],
            "kto_tag": t == "g",
        }
        for t in ("b", "g")
    ]
    (pair,) = read(*chats).pairs
    assert (pair.prompt, pair.chosen) == ([system("S"), user("p")], [assistant("g")])
    assert texts(read(*({"messages": chat("p", t), "label": t == "g"} for t in ("b", "g")))) == [("p", "g", "b")]


def test_prompts_with_one_kind_of_answer(read: Read) -> None:
    """They are counted and told, and rows without a thumb as well."""
    rows = [
        *rated("thumbs", ("g", "up"), ("b", "down"), ("n", "neutral"), ("u", "")),
        *rated("thumbs", ("x", "up"), ("y", "up"), prompt="q"),
        *rated("thumbs", ("z", "down"), prompt="r"),
    ]
    preferences = read(*rows)
    assert texts(preferences) == [("p", "g", "b")]
    assert preferences.left_out == {
        "a label that is neither up nor down ('neutral')": [3],
        UNLABELLED: [4],
        ONLY_GOOD: [5, 6],
        ONLY_BAD: [7],
    }


def test_every_thumb_is_used(read: Read) -> None:
    """Where there are more of one kind, the others are used again."""
    preferences = read(*rated("thumbs", ("g", 1), ("a", 0), ("b", 0), ("c", 0)))
    assert texts(preferences) == [("p", "g", "a"), ("p", "g", "b"), ("p", "g", "c")]


def test_the_same_answer_liked_and_disliked(read: Read) -> None:
    """Such a pair has no difference and is told."""
    preferences = read(*rated("thumbs", ("g", 1), ("g", 0)), *rated("thumbs", ("g", 1), ("b", 0), prompt="q"))
    assert preferences.left_out == {"chosen and rejected the same": [1, 2]}


@pytest.mark.parametrize("values", [(0, 1, 2), (1, 2, 3)])
def test_labels_that_are_no_thumbs(read: Read, values: tuple[Any, ...]) -> None:
    """Numbers that are more than two are not guessed at."""
    with pytest.raises(PreferencesError, match="no layout that is known"):
        read(*rated("label", *zip(("a", "b", "c"), values, strict=True)))


@pytest.mark.parametrize(
    ("column", "values", "shown"),
    [
        ("rating", ("5 stars", "1 star"), "'5 stars'"),
        ("score", ("90%", "10%"), "'90%'"),
        ("rank", ("1st", "2nd"), "'1st'"),
        ("label", ("x", "y", "up"), "'x'"),
    ],
)
def test_ratings_that_cannot_be_read_are_asked_about(
    read: Read, column: str, values: tuple[str, ...], shown: str
) -> None:
    """The column and one of its values are named, and what would do instead."""
    with pytest.raises(PreferencesError) as raised:
        read(*rated(column, *zip("abc", values, strict=False)))
    assert f"column {column!r}, such as {shown}, are neither numbers nor thumbs" in str(raised.value)


def test_ratings_with_a_comma_that_may_mean_two_things(read: Read) -> None:
    """The column is recognised, and the rows are told; what begins with 0 can mean one thing only."""
    preferences = read(*rated("score", ("g", "0,875"), ("b", "0,125"), ("c", "1,234")))
    assert texts(preferences) == [("p", "g", "b")]
    assert list(preferences.left_out.values()) == [[3]]


def test_settings_whose_keys_cannot_be_sorted(read: Read) -> None:
    """Such answers are compared like others."""
    rows = [row | {"chat_template_kwargs": "{1: 2, 'a': 3}"} for row in rated("rating", ("g", 5), ("b", 1))]
    assert [pair.row for pair in read(*rows).pairs] == [1]


def test_what_is_asked_belongs_to_the_group(read: Read) -> None:
    """The same prompt under another system message is another one."""
    rows = [
        {"system": where, "prompt": "p", "response": text, "rating": rating}
        for where, text, rating in (("S", "g", 5), ("T", "x", 1), ("S", "b", 1))
    ]
    preferences = read(*rows)
    assert texts(preferences) == [("system: S\n\nuser: p", "g", "b")]
    assert preferences.left_out == {FEW: [2]}


def thread(own: Any, parent: Any, prompt: str, chosen: str = "g") -> dict[str, Any]:
    return {
        "id": own,
        "parent_id": parent,
        "instruction": prompt,
        "output": chosen,
        "rejected_answer": "b",
        "system": "S",
    }


@pytest.mark.parametrize("parents", [(None, "1", "2"), ("", " 1", "2 "), (None, 1.0, 2.0), (float("nan"), 1, 2)])
def test_threads(read: Read, parents: tuple[Any, ...]) -> None:
    """Rows that answer one another become conversations of what was asked and chosen, however ids are written."""
    own = ["1", "2", "3"] if isinstance(parents[1], str) else [1, 2, 3]
    rows = [thread(id_, parent, f"q{id_}", f"a{id_}") for id_, parent in zip(own, parents, strict=True)]
    pairs = read(*rows).pairs
    assert [pair.prompt for pair in pairs] == [
        [system("S"), *chat("q1")],
        [system("S"), *chat("q1", "a1", "q2")],
        [system("S"), *chat("q1", "a1", "q2", "a2", "q3")],
    ]


@pytest.mark.parametrize("blank", [None, "", float("nan")])
def test_rows_without_ids_are_no_thread(read: Read, blank: Any) -> None:
    """Two blanks are not the same id."""
    preferences = read(thread(blank, blank, "p"), thread(blank, blank, "q"))
    assert [len(pair.prompt) for pair in preferences.pairs] == [2, 2]


def test_broken_threads(read: Read) -> None:
    """A circle, and a turn whose earlier turn gave no pair, are left out."""
    rows = [thread(1, 2, "p"), thread(2, 1, "q"), thread(3, None, "r", ""), thread(4, 3, "s"), thread(5, None, "t")]
    preferences = read(*rows)
    assert preferences.left_out == {
        "a thread that goes in a circle": [1, 2],
        "no chosen": [3],
        "a thread whose earlier turn is left out": [4],
    }
    assert [pair.row for pair in preferences.pairs] == [5]


@pytest.mark.parametrize(
    ("rows", "left_out"),
    [
        (rated("rating", ("a", 5), ("b", 5), ("c", 1)), {"a tie with the best answer": [2]}),
        (rated("rank", ("a", 1), ("b", 1), ("c", 2)), {"a tie with the best answer": [2]}),
        (rated("rating", ("a", 5), ("a", 3), ("c", 1)), {"chosen and rejected the same": [2]}),
        (rated("thumbs", ("x", 1), ("x", 0), ("y", 1)), {"chosen and rejected the same": [1]}),
    ],
)
def test_each_row_is_in_a_pair_or_left_out(
    read: Read, rows: list[dict[str, Any]], left_out: dict[str, list[int]]
) -> None:
    """No answer vanishes, and none is both used and left out."""
    assert read(*rows).left_out == left_out


def test_answers_with_other_tools_are_not_compared(read: Read) -> None:
    """The same prompt with other tools asks something else."""
    one, other = ({"tools": [{"name": name}]} for name in ("look_up", "send"))
    rows = [
        {"prompt": "q", "response": text, "rating": stars, **tools}
        for tools in (one, other)
        for text, stars in (("a", 5), ("b", 1))
    ]
    assert [(pair.row, pair.tools) for pair in read(*rows).pairs] == [(1, one["tools"]), (3, other["tools"])]
