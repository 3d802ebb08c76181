"""Makes a pair from its parts: removes a prompt that the replies repeat, and rejects what cannot be trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..pairfile import Draft
from .messages import Part, Unusable, as_messages

MessageList = list[dict[str, Any]]

SAME = "chosen and rejected the same"


class PromptParts(NamedTuple):
    """What a pair's replies answer: *before* holds messages ahead of the prompt, *under* holds text to put below it."""

    prompt: Part
    before: Sequence[dict[str, Any]] = ()
    under: Part = ""
    tools: Sequence[Any] = ()
    chat_template_kwargs: dict[str, Any] | None = None


def draft(number: int, prompt_parts: PromptParts, chosen: Part, rejected: Part) -> Draft:
    """Make the pair of row *number*.

    Raises:
        Unusable: a part is missing or not JSON, the replies are the same, or a turn is out of place.
    """
    prompt, before, under, tools, kwargs = prompt_parts
    if tools or kwargs:
        _require_json([tools, kwargs], "tools or chat_template_kwargs")
    texts = isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str) and not (before or under)
    if texts and prompt and chosen and rejected and chosen != rejected:
        return Draft(number, prompt, chosen, rejected, tools, kwargs)  # the fast path, by far the most frequent
    conversation = _conversation(prompt_parts)
    good, bad = as_messages(chosen, "assistant"), as_messages(rejected, "assistant")
    if _is_whole_chat(good) and _is_whole_chat(bad):
        conversation, good, bad = _shared(conversation, good, bad)
    _require_question(conversation)
    good, bad = _reply(good, "chosen", conversation), _reply(bad, "rejected", conversation)
    if good == bad:
        raise Unusable(SAME)
    if further := [message for message in (*conversation, *good, *bad) if len(message) > 2]:
        _require_json(further, "a tool call")
    return Draft(number, conversation, good, bad, tools, kwargs)


def reply_to(prompt_parts: PromptParts, reply: Part) -> tuple[MessageList, MessageList]:
    """Return the conversation and the reply to it, without any turns that the reply repeats.

    If there is no prompt and the reply is a whole chat, the reply is everything after its last user turn.

    Raises:
        Unusable: one of them is missing, or a turn is out of place.
    """
    conversation, said = _conversation(prompt_parts), as_messages(reply, "assistant")
    if _is_whole_chat(said) and not any(message["role"] == "user" for message in conversation):
        end = max(place for place, message in enumerate(said) if message["role"] == "user") + 1
        conversation, said = conversation + said[:end], said[end:]
    _require_question(conversation)
    return conversation, _reply(said, "reply", conversation)


def _require_question(conversation: MessageList) -> None:
    if not conversation or conversation[-1]["role"] == "system" or not _has_content(conversation[-1]):
        raise Unusable("no prompt")
    if conversation[-1]["role"] == "assistant":
        raise Unusable("a prompt that ends with the assistant")


def _require_json(value: Any, what: str) -> None:
    """Ensure that *value* can be stored as JSON: Parquet has other types, and JSON can contain lone surrogates."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError):
        raise Unusable(f"something that is no JSON in {what}") from None


def _conversation(prompt_parts: PromptParts) -> MessageList:
    prompt = as_messages(prompt_parts.prompt, "user")
    system = [message for message in prompt_parts.before if message["role"] != "system" or not _has_system(prompt)]
    conversation = [dict(message) for message in (*system, *prompt)]
    for extra in as_messages(prompt_parts.under, "user"):
        if conversation and conversation[-1]["role"] == "user":
            conversation[-1]["content"] += f"\n\n{extra['content']}"
        else:
            conversation.append(extra)
    return conversation


def _has_content(message: dict[str, Any]) -> bool:
    return bool(message["content"].strip()) or len(message) > 2


def _has_system(messages: MessageList) -> bool:
    return bool(messages) and messages[0]["role"] == "system"


def _is_whole_chat(reply: MessageList) -> bool:
    """Whether *reply* is a whole chat and not just a reply."""
    return any(message["role"] == "user" for message in reply)


def _shared(
    conversation: MessageList, good: MessageList, bad: MessageList
) -> tuple[MessageList, MessageList, MessageList]:
    """Split off the common beginning of two whole chats as the prompt, which must contain any prompt that was given."""
    begin, longer = 0, max(good, bad, key=len)
    while begin < min(len(good), len(bad)) and good[begin] == bad[begin]:
        begin += 1
    while begin and (begin == len(longer) or longer[begin]["role"] != "assistant"):
        begin -= 1
    shared = good[:begin]
    told = [message["content"].strip() for message in conversation if message["role"] == "user"]
    if told and told[-1] not in [message["content"].strip() for message in shared]:
        raise Unusable("whole chats that do not ask the prompt")
    if _has_system(conversation) and not _has_system(shared):
        shared = [conversation[0], *shared]
    return shared, good[begin:], bad[begin:]


def _reply(reply: MessageList, what: str, conversation: MessageList) -> MessageList:
    """Return the messages of a reply, without the conversation if the cell repeats it."""
    for beginning in (conversation, conversation[1:]):  # the system message may be in its own column only
        if beginning and reply[: len(beginning)] == beginning:
            reply = reply[len(beginning) :]
    if not any(map(_has_content, reply)):
        raise Unusable(f"no {what}")
    if reply[0]["role"] != "assistant" or any(message["role"] not in ("assistant", "tool") for message in reply):
        raise Unusable(f"a turn in {what} that is not the assistant's")
    return reply
