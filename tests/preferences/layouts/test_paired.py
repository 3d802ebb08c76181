from __future__ import annotations

import json
from typing import Any

import pytest

from dpo_hub.errors import PreferencesError
from tests.preferences.layouts.conftest import Message, Read, Texts, assistant, chat, system, texts, user

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALLS = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
GOOD, BAD = chat("p", "g"), chat("p", "b")
PAIR = ("p", "g", "b")
WITH_SYSTEM = ("system: S\n\nuser: p", "g", "b")
HH = "\n\nHuman: p\n\nAssistant: q\n\nHuman: r\n\nAssistant: "
HH_PROMPT = "user: p\n\nassistant: q\n\nuser: r"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param({"prompt": "p", "chosen": "g", "rejected": "b"}, PAIR, id="TRL text"),
        pytest.param(
            {"prompt": [user("p")], "chosen": [assistant("g")], "rejected": [assistant("b")]}, PAIR, id="TRL messages"
        ),
        pytest.param({"chosen": GOOD, "rejected": BAD}, PAIR, id="TRL implicit prompt"),
        pytest.param({"prompt": "p", "text": "g", "rejected_text": "b"}, PAIR, id="AutoTrain"),
        pytest.param({"prompt": "p", "text": str(GOOD), "rejected_text": str(BAD)}, PAIR, id="AutoTrain, Python"),
        pytest.param(
            {"prompt": "p", "text": json.dumps(GOOD), "rejected_text": json.dumps(BAD)}, PAIR, id="AutoTrain, JSON"
        ),
        pytest.param(
            {
                "instruction": "p",
                "input": "",
                "output": "o",
                "chosen": "g",
                "rejected": "b",
                "system": "",
                "history": [],
            },
            PAIR,
            id="Alpaca, empty",
        ),
        pytest.param(
            {"instruction": "p", "input": "i", "chosen": "g", "rejected": "b", "system": "S", "history": [["q", "a"]]},
            ("system: S\n\nuser: q\n\nassistant: a\n\nuser: p\n\ni", "g", "b"),
            id="Alpaca, full",
        ),
        pytest.param(
            {"instruction": "p", "input": "i", "output": ["g", "b"]}, ("p\n\ni", "g", "b"), id="Alpaca, outputs"
        ),
        pytest.param(
            {
                "conversations": [{"from": "human", "value": "p"}],
                "chosen": {"from": "gpt", "value": "g"},
                "rejected": {"from": "gpt", "value": "b"},
            },
            PAIR,
            id="ShareGPT",
        ),
        pytest.param({"instruction": "p", "output": "g", "rejected_answer": "b"}, PAIR, id="H2O"),
        pytest.param(
            {"user": "p", "assistant": "g", "rejected_response": "b", "system": "S"}, WITH_SYSTEM, id="H2O system"
        ),
        pytest.param(
            {"system": "S", "instruction": "p", "chosen_response": "g", "rejected_response": "b"},
            WITH_SYSTEM,
            id="Axolotl",
        ),
        pytest.param({"system": "S", "input": "p", "chosen": "g", "rejected": "b"}, WITH_SYSTEM, id="Axolotl input"),
        pytest.param(
            {"system": "S", "question": "p", "chosen": "g", "rejected": "b"}, WITH_SYSTEM, id="orca_dpo_pairs"
        ),
        pytest.param({"prompt": "p", "chosen": GOOD, "rejected": BAD}, PAIR, id="Axolotl, prompt and chats"),
        pytest.param(
            {"messages": [user("p")], "chosen": assistant("g"), "rejected": assistant("b")}, PAIR, id="Axolotl messages"
        ),
        pytest.param(
            {
                "input": {"messages": [system("S"), user("p")], "tools": [], "parallel_tool_calls": True},
                "preferred_output": [assistant("g")],
                "non_preferred_output": [assistant("b")],
            },
            WITH_SYSTEM,
            id="OpenAI",
        ),
        pytest.param({"input": "p", "preferred_output": "g", "non_preferred_output": "b"}, PAIR, id="OpenAI, text"),
        pytest.param({"messages": [system("S"), *GOOD], "rejected_response": "b"}, WITH_SYSTEM, id="ms-swift"),
        pytest.param({"messages": GOOD, "rejected_messages": BAD}, PAIR, id="ms-swift, rejected messages"),
        pytest.param(
            {
                "prompt": "p",
                "prompt_id": "af3",
                "chosen": GOOD,
                "rejected": BAD,
                "messages": GOOD,
                "score_chosen": 8.5,
                "score_rejected": 2.0,
            },
            PAIR,
            id="UltraFeedback",
        ),
        pytest.param({"chosen": GOOD, "rejected": BAD, "messages": GOOD}, PAIR, id="UltraFeedback, no prompt"),
        pytest.param({"prompt": "p", "chosen": "g", "rejected": "b", "messages": GOOD}, PAIR, id="prompt and messages"),
        pytest.param(
            {"dataset": "d", "chosen": GOOD, "rejected": BAD, "chosen_rating": 5.0, "rejected_rating": 3.0},
            PAIR,
            id="argilla dpo-mix",
        ),
        pytest.param(
            {"prompt": "p", "chosen": "g", "rejected": "b", "chosen-rating": 4, "rejected-rating": 4},
            PAIR,
            id="equal ratings",
        ),
        pytest.param(
            {
                "instruction": "p",
                "generations": ["b", "x", "g"],
                "ratings": [1, 5, 3],
                "chosen": GOOD,
                "rejected": BAD,
            },
            PAIR,
            id="distilabel with its generations",
        ),
        pytest.param(
            {
                "prompt": "p",
                "completions": [{"response": "x", "overall_score": 9}, {"response": "y", "overall_score": 1}],
                "chosen": "g",
                "rejected": "b",
            },
            PAIR,
            id="UltraFeedback with its completions",
        ),
        pytest.param({"chosen": HH + "g", "rejected": HH + "b"}, (HH_PROMPT, "g", "b"), id="HH"),
        pytest.param({"prompt": HH, "chosen": " g", "rejected": " b"}, (HH_PROMPT, "g", "b"), id="HH with a prompt"),
        pytest.param({"Query": "p", "Better Response": "g", "worse-response": "b"}, PAIR, id="loose names"),
    ],
)
def test_layouts_that_say_which_is_chosen(read: Read, row: dict[str, Any], expected: Texts) -> None:
    """Each layout gives the pair it holds, and nothing is left out."""
    preferences = read(row, row)
    assert texts(preferences) == [expected] * 2
    assert preferences.left_out == {}


def test_columns_are_told_as_the_source_spells_them(read: Read) -> None:
    """People see which column each part was taken from."""
    preferences = read({"Question": "p", "Good": "g", "Bad": "b", "System Prompt": "S"})
    assert preferences.columns == {"prompt": "Question", "system": "System Prompt", "chosen": "Good", "rejected": "Bad"}


def test_tools_and_template_settings_are_kept(read: Read) -> None:
    """What the chat template takes comes along, be it an object or written out."""
    call: Message = {"role": "assistant", "content": "", "tool_calls": CALLS}
    row = {"prompt": "p", "chosen": [call], "rejected": "b", "chat_template_kwargs": {"enable_thinking": False}}
    for tools in (TOOLS, json.dumps(TOOLS)):
        (pair,) = read({**row, "tools": tools}).pairs
        assert pair.messages["tools"] == TOOLS
        assert pair.messages["chat_template_kwargs"] == {"enable_thinking": False}
        assert pair.chosen == [call]


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"tools": "none at all"}, "something other than a list in tools"),
        ({"tools": {"name": "weather"}}, "something other than a list in tools"),
        ({"tools": 1.5}, "something other than a list in tools"),
        ({"chat_template_kwargs": [1]}, "something other than a dict in chat_template_kwargs"),
        ({"history": "words"}, "a history that is neither messages nor pairs of question and answer"),
        ({"history": [["q"]]}, "a history that is neither messages nor pairs of question and answer"),
    ],
)
def test_what_goes_with_the_prompt_is_not_dropped_silently(read: Read, extra: dict[str, Any], reason: str) -> None:
    """A row whose tools or history cannot be read is left out; one where they are blank is not."""
    row = {"prompt": "p", "chosen": "g", "rejected": "b"}
    preferences = read({**row, **extra}, {**row, **dict.fromkeys(extra, "")}, {**row, **dict.fromkeys(extra)})
    assert preferences.left_out == {reason: [1]}


@pytest.mark.parametrize(
    "history", [[["q", "a"]], '[["q", "a"]]', chat("q", "a"), json.dumps(chat("q", "a")), "Human: q\n\nAssistant: a"]
)
def test_earlier_turns_come_before_the_prompt(read: Read, history: Any) -> None:
    """A history may be pairs, messages or a transcript."""
    (pair,) = read({"prompt": "p", "history": history, "chosen": "g", "rejected": "b"}).pairs
    assert pair.prompt == chat("q", "a", "p")


def test_openai_with_tools_and_several_turns(read: Read) -> None:
    """A call may be what is preferred, and the whole conversation is the prompt."""
    row = {
        "input": {"messages": [system("S"), *chat("p", "q", "r")], "tools": TOOLS, "parallel_tool_calls": False},
        "preferred_output": [{"role": "assistant", "content": None, "tool_calls": CALLS}],
        "non_preferred_output": [assistant("b")],
    }
    (pair,) = read(row).pairs
    assert pair.prompt == [system("S"), *chat("p", "q", "r")]
    assert pair.chosen == [{"role": "assistant", "content": "", "tool_calls": CALLS}]
    assert pair.tools == TOOLS


def test_sharegpt_with_calls_and_observations(read: Read) -> None:
    """A function call and what came of it are turns of the prompt."""
    turns = [
        {"from": "human", "value": "Weather?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
        {"from": "observation", "value": "12 °C"},
    ]
    row = {
        "conversations": turns,
        "chosen": {"from": "gpt", "value": "g"},
        "rejected": {"from": "gpt", "value": "b"},
        "system": "S",
        "tools": json.dumps(TOOLS),
    }
    (pair,) = read(row).pairs
    assert [message["role"] for message in pair.prompt] == ["system", "user", "assistant", "tool"]
    assert pair.prompt[2]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Oslo"}}
    assert pair.tools == TOOLS


def test_scores_that_contradict_the_pair(read: Read) -> None:
    """A rejected reply that is rated higher is left out; a missing score is not held against a pair."""
    row = {"prompt": "p", "chosen": "g", "rejected": "b"}
    scores = [(2, 8), (8, 2), (5, 5), (None, 3), ("n/a", 3)]
    preferences = read(*({**row, "score_chosen": good, "score_rejected": bad} for good, bad in scores))
    assert preferences.left_out == {"a rejected reply with the better score": [1]}
    assert [pair.row for pair in preferences.pairs] == [2, 3, 4, 5]


@pytest.mark.parametrize("blank", [None, float("nan"), "", "  ", []])
def test_blank_cells(read: Read, blank: Any) -> None:
    """However a table spells it, an empty cell is no reply, and a blank first row does not hide what the rest is."""
    assert read(
        {"prompt": "p", "chosen": "g", "rejected": blank}, {"prompt": "p", "chosen": "g", "rejected": "b"}
    ).left_out == {"no rejected": [1]}
    preferences = read({"chosen": blank, "rejected": blank}, {"chosen": GOOD, "rejected": BAD})
    assert texts(preferences) == [PAIR]


@pytest.mark.parametrize(("cell", "text"), [(5, "5"), (2.5, "2.5"), (False, "False"), (0, "0")])
def test_numbers_and_booleans_are_replies(read: Read, cell: Any, text: str) -> None:
    """A reply to a sum is a number."""
    assert texts(read({"prompt": "p", "chosen": "g", "rejected": cell})) == [("p", "g", text)]


def test_two_outputs_that_are_not_two(read: Read) -> None:
    """The old Alpaca layout has a good answer and a bad one, no fewer and no more."""
    row = {"instruction": "p", "input": ""}
    preferences = read({**row, "output": ["g", "b"]}, {**row, "output": ["g"]}, {**row, "output": ["a", "b", "c"]})
    assert preferences.left_out == {"something other than two answers in output": [2, 3]}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "response": "r", "helpfulness": 3, "correctness": 4, "coherence": 4, "verbosity": 2},
        {"prompt": "p", "chosen": "g"},
        {"title": "p", "body": "g"},
        {"chosen": "g", "rejected": "b"},
    ],
)
def test_what_is_no_layout_gets_one_clear_sentence(read: Read, row: dict[str, Any]) -> None:
    """The columns are named, and how to say which is which."""
    with pytest.raises(PreferencesError, match="no layout that is known") as raised:
        read(row, row)
    assert all(repr(name) in str(raised.value) for name in row)
    assert "--map prompt=" in str(raised.value)


def test_names_of_who_replied_are_no_replies(read: Read) -> None:
    """A winner and a loser that are named in other columns are not what was said."""
    row = {"prompt": "q", "answer_gpt": "x", "answer_llama": "y", "winner": "gpt", "loser": "llama"}
    with pytest.raises(PreferencesError, match="hold names that other columns have"):
        read(row)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "question": "q", "statement": "s", "chosen": "question", "rejected": "statement"},
        {"prompt": "p", "user_id": 1, "prompt_id": 2, "chosen": "user prompt", "rejected": "user"},
    ],
)
def test_short_replies_are_not_taken_for_names(read: Read, row: dict[str, Any]) -> None:
    """A word that a column happens to be called is a reply, and so are words of several columns."""
    assert texts(read(row)) == [("p", row["chosen"], row["rejected"])]
