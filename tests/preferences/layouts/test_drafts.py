from __future__ import annotations

from typing import Any

import pytest

from dpo_hub.preferences.layouts.drafts import SAME, PromptParts, draft
from dpo_hub.preferences.layouts.messages import Part, Unusable
from dpo_hub.preferences.pairfile import Draft
from tests.preferences.layouts.conftest import Message, assistant, chat, system, user

CALL: Message = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather"}}]}
RESULT: Message = {"role": "tool", "content": "12 °C"}


def made(prompt: Part, chosen: Part, rejected: Part, **asked: Any) -> Draft:
    return draft(7, PromptParts(prompt, **asked), chosen, rejected)


def test_parts_become_messages_of_their_roles() -> None:
    """Plain text is said by the user in the prompt and by the assistant in a reply, and stays text where all is."""
    assert made("Hi", "Yo", "No") == Draft(7, "Hi", "Yo", "No")
    pair = made("Hi", "Yo", "No", before=[system("S")])
    assert pair == Draft(7, [system("S"), user("Hi")], [assistant("Yo")], [assistant("No")])


@pytest.mark.parametrize("spoilt", [{"x": "\ud83d"}, {"x": b"1"}])
def test_what_is_no_json_beside_a_pair_is_told(spoilt: dict[str, Any]) -> None:
    """Half a character or bytes in a tool, a setting of the template or a call spoil their own pair only."""
    call = {"role": "assistant", "content": "", "tool_calls": [spoilt]}
    for given in ({"tools": [spoilt]}, {"chat_template_kwargs": spoilt}):
        with pytest.raises(Unusable, match="no JSON in tools"):
            made("Hi", "Yo", "No", **given)
    with pytest.raises(Unusable, match="no JSON in a tool call"):
        made("Hi", [call], "No")


@pytest.mark.parametrize("repeated", [chat("Hi"), [system("S"), user("Hi")]])
def test_a_reply_may_repeat_what_was_asked(repeated: list[Message]) -> None:
    """Where a reply is a whole chat, only its end is the reply, with or without the system message."""
    pair = made("Hi", [*repeated, assistant("Yo")], [*repeated, assistant("No")], before=[system("S")])
    assert pair == Draft(7, [system("S"), user("Hi")], [assistant("Yo")], [assistant("No")])
    assert made("Hi", [*chat("Hi"), assistant("Yo")], "No").chosen == [assistant("Yo")]


@pytest.mark.parametrize(
    ("good", "bad", "prompt"),
    [
        (chat("a", "b"), chat("a", "c"), chat("a")),
        (chat("a", "b", "c", "d"), chat("a", "b", "c", "e"), chat("a", "b", "c")),
        (
            [user("a"), CALL, RESULT, assistant("b")],
            [user("a"), CALL, RESULT, assistant("c")],
            [user("a"), CALL, RESULT],
        ),
        ([user("a"), CALL, RESULT, assistant("b")], chat("a", "c"), chat("a")),
        ([system("S"), *chat("a", "b")], [system("S"), *chat("a", "c")], [system("S"), user("a")]),
    ],
)
def test_what_two_chats_begin_with_is_the_prompt(
    good: list[Message], bad: list[Message], prompt: list[Message]
) -> None:
    """The chats part where the assistant says different things."""
    pair = made("", good, bad)
    assert pair.prompt == prompt
    assert [*pair.prompt, *pair.chosen] == good
    assert [*pair.prompt, *pair.rejected] == bad


@pytest.mark.parametrize(
    ("asked", "good", "bad", "reason"),
    [
        ("", "a", "b", "no prompt"),
        ([user("")], "a", "b", "no prompt"),
        ([system("S")], "a", "b", "no prompt"),
        ("Hi", "", "b", "no chosen"),
        ("Hi", "a", "", "no rejected"),
        ("Hi", "a", [assistant(" ")], "no rejected"),
        ("Hi", "a", "a", SAME),
        ("Hi", chat("Hi", "a"), "a", SAME),
        ("", chat("Hi", "a"), chat("Hi", "a"), SAME),
        ("", chat("Hi", "a"), chat("Hi"), "no rejected"),
        ("", chat("Hi", "a", "b"), chat("Hi", "a", "b", "c"), "no chosen"),
        ("", chat("Hi", "a"), chat("Ho", "b"), "no prompt"),
        ("", chat("Hi", "a", "b", "c"), chat("Hi", "d", "e", "f"), "a turn in chosen that is not the assistant's"),
        ("Ho", chat("Hi", "a"), chat("Hi", "b"), "whole chats that do not ask the prompt"),
        ("Ho", chat("Hi", "a"), "b", "a turn in chosen that is not the assistant's"),
        ("Hi", "a", [user("b")], "a turn in rejected that is not the assistant's"),
        (chat("Hi", "a"), "b", "c", "a prompt that ends with the assistant"),
    ],
)
def test_what_is_no_pair_is_told(asked: Part, good: Part, bad: Part, reason: str) -> None:
    """The reason names the part at fault."""
    with pytest.raises(Unusable) as raised:
        made(asked, good, bad)
    assert str(raised.value) == reason


def test_a_system_message_comes_first_and_once() -> None:
    """That of the prompt counts where both have one; one beside whole chats is put before them."""
    assert made("Hi", "a", "b", before=[system("S")]).prompt == [system("S"), user("Hi")]
    assert made([system("T"), user("Hi")], "a", "b", before=[system("S")]).prompt == [system("T"), user("Hi")]
    pair = made("", chat("Hi", "a"), chat("Hi", "b"), before=[system("S")])
    assert (pair.prompt, pair.chosen) == ([system("S"), user("Hi")], [assistant("a")])


def test_text_under_the_prompt() -> None:
    """The input belongs to what the user asks last, never to what the system says."""
    assert made("Mend", "a", "b", under="freind").prompt == [user("Mend\n\nfreind")]
    assert made(chat("Hi", "Yo", "Mend"), "a", "b", under="freind").prompt == chat("Hi", "Yo", "Mend\n\nfreind")
    assert made("", "a", "b", under="freind", before=[system("S")]).prompt == [system("S"), user("freind")]


def test_a_prompt_stays_as_it_was() -> None:
    """Putting text under a prompt changes no message that someone else holds."""
    prompt = [user("Mend")]
    made(prompt, "a", "b", under="freind")
    assert prompt == [user("Mend")]


def test_a_call_without_words_is_a_reply() -> None:
    """A reply may be a tool call alone, and its result may follow."""
    pair = made("Weather?", [CALL, RESULT, assistant("Cold")], [CALL], tools=[{"name": "weather"}])
    assert pair.chosen == [CALL, RESULT, assistant("Cold")]
    assert pair.rejected == [CALL]
    assert pair.tools == [{"name": "weather"}]
