from __future__ import annotations

import json
from typing import Any

import pytest

from dpo_hub.preferences.layouts.drafts import SAME
from dpo_hub.preferences.layouts.messages import IMAGE
from dpo_hub.preferences.layouts.verdicts import TIE
from tests.preferences.layouts.conftest import Read, Texts, assistant, system, texts

FEW = "fewer than two rated answers to a prompt"


def vertex(*answers: tuple[Any, str], **more: Any) -> dict[str, Any]:
    completions = [
        {"score": score, "completion": {"role": "model", "parts": [{"text": text}]}} for score, text in answers
    ]
    return {"contents": [{"role": "user", "parts": [{"text": "p"}]}], "completions": completions, **more}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "p", "generations": ["b", "g"], "ratings": [1, 5]}, [("p", "g", "b")]),
        ({"instruction": "p", "generations": ["b", "g"], "ratings": ["4,5", "4.6"]}, [("p", "g", "b")]),
        ({"prompt": "p", "responses": ["b", "g"], "scores": [1, 5]}, [("p", "g", "b")]),
        ({"prompt": "p", "responses": ["g", "b"], "ranks": [1, 5]}, [("p", "g", "b")]),
        ({"prompt": "p", "generations": '["b", "g"]', "ratings": "[1, 5]"}, [("p", "g", "b")]),
        (
            {"prompt": "p", "generations": ["c", "g", "b", "x"], "ratings": [3, 5, 1, None]},
            [("p", "g", "c"), ("p", "g", "b")],
        ),
        (
            {
                "instruction": "p",
                "completions": [{"response": "g", "overall_score": 8.5}, {"response": "b", "overall_score": 2}],
            },
            [("p", "g", "b")],
        ),
        (
            {
                "prompt": "p",
                "answers": [{"answer": "b", "rank": 7}, {"answer": "g", "rank": 1}, {"answer": "c", "rank": 3}],
            },
            [("p", "g", "b"), ("p", "g", "c")],
        ),
        (
            {"prompt": "p", "answers": json.dumps([{"text": "b", "score": 1}, {"text": "g", "score": 2}])},
            [("p", "g", "b")],
        ),
        (vertex((0.0, "b"), (1.0, "g")), [("p", "g", "b")]),
        (
            vertex((1, "g"), (0, "b"), systemInstruction={"parts": [{"text": "S"}]}),
            [("system: S\n\nuser: p", "g", "b")],
        ),
    ],
)
def test_the_best_answer_is_paired_with_each_worse_one(read: Read, row: dict[str, Any], expected: list[Texts]) -> None:
    """Higher scores and lower ranks are better; an answer without either is passed over."""
    preferences = read(row, row)
    assert texts(preferences) == expected * 2
    assert preferences.left_out == {}


@pytest.mark.parametrize(
    ("generations", "ratings", "reason"),
    [
        (["g", "b"], [5, 5], TIE),
        (["g", "b"], [5], "not as many ratings as answers"),
        (["g", "b"], None, "not as many ratings as answers"),
        (["g", "b"], [5, "N/A"], FEW),
        (["g", ""], [5, 1], FEW),
        ([], [], FEW),
        (["g", "b"], [5, "good"], "a rating that is no number ('good')"),
        (["g", "g"], [5, 1], SAME),
        (["g", {"role": "assistant", "content": [{"type": "image"}]}], [5, 1], IMAGE),
    ],
)
def test_ratings_that_say_nothing(read: Read, generations: list[Any], ratings: Any, reason: str) -> None:
    """Each such row is left out with its reason."""
    row = {"instruction": "p", "generations": ["g", "b"], "ratings": [5, 1]}
    assert read(row, {**row, "generations": generations, "ratings": ratings}).left_out == {reason: [2]}


def test_the_same_answer_twice_spoils_nothing_else(read: Read) -> None:
    """A pair without a difference is passed over, the others are made."""
    row = {"instruction": "p", "generations": ["g", "g", "b"], "ratings": [5, 3, 1]}
    assert texts(read(row)) == [("p", "g", "b")]


@pytest.mark.parametrize("instruction", ["S", {"role": "system", "parts": [{"text": "S"}]}, {"parts": [{"text": "S"}]}])
@pytest.mark.parametrize("name", ["system_instruction", "systemInstruction"])
def test_the_system_instruction_of_vertex(read: Read, name: str, instruction: Any) -> None:
    """It may be spelled either way, be text, and leave out its role."""
    (pair,) = read(vertex((1, "g"), (0, "b"), **{name: instruction})).pairs
    assert pair.prompt[0] == system("S")


def test_parts_of_vertex_are_joined(read: Read) -> None:
    """Several parts are one message, and a part that is no text is no pair."""
    good = vertex((1, "g"), (0, "b"))
    several = {**good, "contents": [{"role": "user", "parts": [{"text": "p"}, {"text": "q"}]}]}
    media = {**good, "contents": [{"role": "user", "parts": [{"fileData": {"fileUri": "gs://x"}}, {"text": "p"}]}]}
    preferences = read(several, media)
    assert texts(preferences) == [("p\nq", "g", "b")]
    assert preferences.left_out == {IMAGE: [2]}


def node(text: str, role: str, rank: int | None = None, *replies: dict[str, Any]) -> dict[str, Any]:
    return {"text": text, "role": role, "rank": rank, "replies": list(replies)}


def test_trees_of_ranked_replies(read: Read) -> None:
    """Open Assistant's trees give a pair at each prompt with two ranked replies, deep ones under all that was said."""
    deep = node("q", "prompter", None, node("d", "assistant", 1), node("c", "assistant", 0))
    tree = node("p", "prompter", None, node("b", "assistant", 1), node("g", "assistant", 0, deep))
    preferences = read({"prompt": tree})
    assert texts(preferences) == [("p", "g", "b"), ("user: p\n\nassistant: g\n\nuser: q", "c", "d")]


@pytest.mark.parametrize("prompt", [node("p", "prompter"), {"replies": 5}, {"replies": [5]}, 5, None])
def test_trees_without_ranked_replies(read: Read, prompt: Any) -> None:
    """A tree that holds no pair is left out as one row."""
    good = {"prompt": node("p", "prompter", None, node("b", "assistant", 1), node("g", "assistant", 0))}
    preferences = read(good, {"prompt": prompt, "id": 2})
    assert preferences.left_out == {"no message with two ranked replies": [2]}


def test_a_tree_may_be_very_deep(read: Read) -> None:
    """Depth is no reason to stop."""
    tree = node("q", "prompter", None, node("b", "assistant", 1), node("g", "assistant", 0))
    for _ in range(100):
        tree = node("p", "prompter", None, node("a", "assistant", 0, tree))
    (pair,) = read({"prompt": tree}).pairs
    assert (len(pair.prompt), pair.chosen) == (201, [assistant("g")])
