from __future__ import annotations

import json
import math
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_hub.preferences.layouts.messages import (
    IMAGE,
    Unusable,
    as_messages,
    is_messages,
    is_plain,
    listed,
    loaded,
    message_of,
    objects,
    part_of,
)
from tests.preferences.layouts.conftest import Read, assistant, chat, user

CALL = {"name": "weather", "arguments": {"city": "Oslo"}}
NO_CHAT = "something other than chat messages"


@pytest.mark.parametrize(
    ("cell", "part"),
    [
        ("Hi", "Hi"),
        ("  Hi \n", "Hi"),
        ("", ""),
        (" \n", ""),
        (None, ""),
        (math.nan, ""),
        ([], []),
        (5, "5"),
        (2.5, "2.5"),
        (True, "True"),
        (["Hi"], "Hi"),
        ([user("Hi")], [user("Hi")]),
        (user("Hi"), [user("Hi")]),
        ({"from": "human", "value": "Hi"}, [user("Hi")]),
        ({"role": "model", "parts": [{"text": "a"}, {"text": "b"}]}, [assistant("a\nb")]),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}, [user("a\nb")]),
        ({"role": "User ", "text": "Hi"}, [user("Hi")]),
        (json.dumps(chat("a", "b")), chat("a", "b")),
        (str(chat("a", "b")), chat("a", "b")),
        (json.dumps(user("Hi")), [user("Hi")]),
        ("[{'from': 'gpt', 'value': 'b'}]", [assistant("b")]),
        ("Human: a\n\nAssistant: b", chat("a", "b")),
        ("b<|im_end|>", "b"),
    ],
)
def test_a_cell_may_be_written_in_many_ways(cell: Any, part: Any) -> None:
    """Text, a message, messages, those written out as JSON or Python, and rendered chats all mean the same."""
    assert part_of(cell, "prompt") == part


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2, 3]",
        "[{no JSON",
        '["a"]',
        '{"from": "Berlin", "to": "Paris"}',
        '[{"role": "admin", "name": "Ann"}]',
        "{'role': 'owner'}",
        "[from] me",
        "Human: who are you?",
        "<b>bold</b>",
        "<s>struck</s>",
        "It's 5 > 3>",
    ],
)
def test_text_that_only_looks_like_markup_stays_as_it_is(text: str) -> None:
    """Brackets and angles are not yet a chat."""
    assert part_of(text, "prompt") == text


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ([1], NO_CHAT),
        ([None], NO_CHAT),
        (["a", "b"], NO_CHAT),
        ({"a": 1}, NO_CHAT),
        ({"role": "user"}, NO_CHAT),
        ({"role": 1, "content": "a"}, NO_CHAT),
        ({"role": "user", "content": {"a": 1}}, NO_CHAT),
        ({"role": "user", "content": [5]}, "something other than text"),
        ({"role": "narrator", "content": "a"}, "a role that is not known in prompt ('narrator')"),
        ('[{"role": "narrator", "content": "a"}]', "a role that is not known in prompt ('narrator')"),
        ({"from": "function_call", "value": "no JSON"}, "a function call that is not JSON"),
        ({"from": "function_call", "value": "[1]"}, "a function call that is not JSON"),
        ("Hi \ud83d", "broken characters in prompt"),
        (user("Hi \ud83d"), "broken characters in prompt"),
        (b"Hi", "bytes, not text, in prompt"),
    ],
)
def test_what_is_no_chat_is_told_in_a_few_words(cell: Any, told: str) -> None:
    """A complaint says what is wrong with which part."""
    with pytest.raises(Unusable) as raised:
        part_of(cell, "prompt")
    assert told in str(raised.value)
    assert "prompt" in str(raised.value)


def test_complaints_do_not_repeat_what_may_be_huge() -> None:
    """However long a cell is, the reason is short."""
    for cell in ({"role": "x" * 10_000, "content": "a"}, [{"x" * 10_000: 1}], user("\ud83d" * 10_000)):
        with pytest.raises(Unusable) as raised:
            part_of(cell, "prompt")
        assert len(str(raised.value)) < 100


MEDIA: list[dict[str, Any]] = [
    {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/cat.png"}},
    {"type": "image"},
    {"type": "input_audio", "input_audio": {"data": "…"}},
    {"type": "video", "video": "cat.mp4"},
    {"fileData": {"fileUri": "gs://cats/cat.png"}},
    {"inlineData": {"data": "…"}},
    {"file_data": {"file_uri": "gs://cats/cat.png"}},
    {"inline_data": {"data": "…"}},
]


@pytest.mark.parametrize("piece", MEDIA)
@pytest.mark.parametrize("key", ["content", "parts"])
def test_media_are_refused(piece: dict[str, Any], key: str) -> None:
    """A message with an image is left out, not trained on without it."""
    with pytest.raises(Unusable) as raised:
        message_of({"role": "user", key: [{"text": "What is this?"}, piece]}, "prompt")
    assert str(raised.value) == IMAGE


def test_no_address_is_looked_up(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a file never fetches what it links to."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    linked = {"role": "user", "content": [MEDIA[0]]}
    preferences = read(
        {"prompt": [linked], "chosen": "a", "rejected": "b"},
        {"prompt": "See http://127.0.0.1:9/ and ![](http://127.0.0.1:9/a.png)", "chosen": "a", "rejected": "b"},
    )
    assert preferences.left_out == {IMAGE: [1]}
    assert [pair.row for pair in preferences.pairs] == [2]


def test_calls_and_their_results_are_kept() -> None:
    """Tool calls need no content, and what belongs to them stays with the message."""
    calls = [{"id": "c1", "type": "function", "function": CALL}]
    asked = {"role": "assistant", "content": None, "tool_calls": calls}
    assert message_of(asked, "chosen") == {"role": "assistant", "content": "", "tool_calls": calls}
    result = {"role": "tool", "content": "12 °C", "tool_call_id": "c1", "name": "weather"}
    assert message_of(result, "prompt") == result


@pytest.mark.parametrize("written", [json.dumps(CALL), json.dumps([CALL]), str(CALL)])
def test_a_function_call_of_sharegpt_is_a_tool_call(written: str) -> None:
    """What ShareGPT writes out as text, chat templates take as an object."""
    message = message_of({"from": "function_call", "value": written}, "chosen")
    assert message == {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}]}


@pytest.mark.parametrize(
    ("written", "role"),
    [("human", "user"), ("gpt", "assistant"), ("model", "assistant"), ("observation", "tool"), ("developer", "system")],
)
def test_speakers_have_many_names(written: str, role: str) -> None:
    """Each tool's word for a speaker is the chat template's."""
    assert message_of({"from": written, "value": "a"}, "prompt")["role"] == role


def test_as_messages_gives_messages_of_its_own() -> None:
    """Plain text is spoken by the role, and changing the result changes nothing else."""
    given_messages = [user("Hi")]
    as_messages(given_messages, "user")[0]["content"] = "Ho"
    assert given_messages == [user("Hi")]
    assert as_messages("Hi", "assistant") == [assistant("Hi")]
    assert as_messages("", "assistant") == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([user("a")], True),
        ([{"from": "human", "value": "a"}], True),
        ([{"from": "Berlin"}], False),
        ([], False),
        ("a", False),
        (user("a"), False),
        ([["a"]], False),
    ],
)
def test_a_list_of_messages_is_told_by_its_first(value: Any, expected: bool) -> None:
    """A message has a speaker and something said."""
    assert is_messages(value) is expected


def test_values_written_out() -> None:
    """JSON and Python are read, anything else is nothing."""
    assert loaded('{"a": null}') == loaded("{'a': None}") == {"a": None}
    assert loaded("no") is loaded("[" * 100_000) is None
    assert listed("[1, 2]") == listed([1, 2]) == [1, 2]
    assert listed('{"a": 1}') == listed("no") == listed(None) == listed(5) == []
    assert objects('[{"a": 1}]', "x") == [{"a": 1}]
    with pytest.raises(Unusable, match="something other than a list of objects in x"):
        objects([{"a": 1}, 2], "x")


STARTS = ["[", "{", "<", "<|im_start|>user\n", "Human:", "USER:", "### ", "Below is an instruction", "A chat between a"]
ENDS = ["", ">", "</s>", "<|im_end|>", "\ud800", "é", "Assistant: a"]


@given(st.sampled_from(["", *STARTS]), st.text(max_size=20), st.sampled_from(ENDS))
def test_plain_text_is_what_comes_through_unchanged(start: str, middle: str, end: str) -> None:
    """The quick test never says plain of a text that a careful look would change or refuse."""
    text = (start + middle + end).strip()
    if is_plain(text):
        assert part_of(text, "prompt") == text


@pytest.mark.parametrize(("cell", "plain"), [("Hi", True), ("5 > 3", True), ("", False), (5, False), (None, False)])
def test_most_text_is_plain(cell: Any, plain: bool) -> None:
    """The quick way is taken for text without any mark."""
    assert is_plain(cell) is plain
