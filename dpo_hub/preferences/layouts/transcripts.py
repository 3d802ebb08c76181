"""Converts chats that were already rendered to text back to messages, so that no chat template is applied twice.

A text counts as a transcript only if all of it has that form, from beginning to end; anything else stays plain text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "instruction", "input", "[inst]"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "ai", "chatbot", "response", "[/inst]"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "tool"),
}
"""Names of the roles in other tools, in lower case."""

_PREAMBLES = ("Below is an instruction", "A chat between a")
WORDS = ("Human:", "USER:", "### ", *_PREAMBLES)
"""Beginnings of transcripts that mark turns only with words."""

_STARTS = ("<|", "<s>", "<bos>", "<start_of_turn>", "[INST]", *WORDS)
_FIRST_TOKEN = re.compile(r"\A(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>)\s*")
_LAST_TOKENS = (
    *("</s>", "<eos>", "<end_of_turn>"),
    *("<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>"),
)
_SYSTEM, _SYSTEM_END = "<<SYS>>", "<</SYS>>"


@dataclass(frozen=True)
class _Markup:
    """How a family of models marks its turns: *opening* captures the role, *closing* ends the turn if it is used.

    If the marks are plain words, both speakers must appear, or a text that quotes one would be mistaken for a chat. A
    single mark of another kind must be closed or alone on its line.
    """

    opening: re.Pattern[str]
    closing: str = ""
    words: bool = False


_FAMILIES = (
    _Markup(re.compile(r"<\|im_start\|>[ \t]*(\w+)[ \t]*\n?"), "<|im_end|>"),
    _Markup(re.compile(r"<\|start_header_id\|>[ \t]*(\w+)[ \t]*<\|end_header_id\|>\s*"), "<|eot_id|>"),
    _Markup(re.compile(r"<start_of_turn>[ \t]*(\w+)[ \t]*\n?"), "<end_of_turn>"),
    _Markup(re.compile(r"<\|(system|user|assistant)\|>\s*")),
    _Markup(re.compile(r"(\[/?INST\])\s*"), words=True),
    _Markup(re.compile(r"(?:\A|\n\n)(Human|Assistant):[ \t]*"), words=True),
    _Markup(re.compile(r"(?:\A|\n)(Human|Assistant):[ \t]*"), words=True),
    _Markup(re.compile(r"(?:\A|(?<=\s)|(?<=</s>))(USER|ASSISTANT):[ \t]*"), words=True),
    _Markup(re.compile(r"(?<!#)### ?(Instruction|Input|Response|Human|User|Assistant|System):[ \t]*\n?"), words=True),
)


def parse_transcript(text: str) -> list[dict[str, Any]] | None:
    """Return the messages of a rendered chat, without an empty last turn, or None if *text* is plain text.

    Recognises ChatML, Llama 2 and 3, Mistral, Gemma, Zephyr and Phi, and the word marks of HH, Vicuna and Alpaca.
    """
    text = text.strip()
    if not text.startswith(_STARTS):
        return None
    text = _FIRST_TOKEN.sub("", text)
    for markup in _FAMILIES:
        if messages := _turns(text, markup):
            return messages
    return None


def without_last_token(text: str) -> str:
    """Remove the tokens that end a turn from *text*. HTML with `<s>` may legitimately end in `</s>`, so it is kept."""
    if text.endswith("</s>") and "<s>" in text:
        return text
    while (stripped := text.rstrip()).endswith(_LAST_TOKENS):
        text = stripped[: stripped.rindex("<")].rstrip()
    return text


def _turns(text: str, markup: _Markup) -> list[dict[str, Any]]:
    before, *rest = markup.opening.split(text)
    marks, turns = [mark.lower() for mark in rest[::2]], rest[1::2]
    if not set(marks) <= ROLES.keys() or not _is_chat(text, markup, marks):
        return []
    if before.strip() and not before.startswith(_PREAMBLES):
        return []
    messages = [{"role": "system", "content": before.strip()}] if before.strip() else []
    for mark, turn in zip(marks, turns, strict=True):
        content, _, after = turn.partition(markup.closing) if markup.closing else (turn, "", "")
        if _FIRST_TOKEN.sub("", without_last_token(after).strip()):
            return []
        content = without_last_token(content.strip().removesuffix("<s>")).strip()
        if mark == "input" and messages:
            messages[-1]["content"] += f"\n\n{content}"
        else:
            messages += _turn(ROLES[mark], content)
    while messages and messages[-1]["role"] == "assistant" and not messages[-1]["content"]:
        messages.pop()
    return messages


def _is_chat(text: str, markup: _Markup, marks: list[str]) -> bool:
    """Whether *marks* come from a chat, and not from a text that mentions them."""
    if markup.words:
        return {"user", "assistant"} <= {ROLES[mark] for mark in marks}
    if len(marks) != 1:
        return bool(marks)
    opening = markup.opening.search(text)
    return without_last_token(text) != text or (opening is not None and opening[0].endswith("\n"))


def _turn(role: str, content: str) -> list[dict[str, Any]]:
    if role == "user" and content.startswith(_SYSTEM) and _SYSTEM_END in content:
        system, _, content = content.removeprefix(_SYSTEM).partition(_SYSTEM_END)
        return [{"role": "system", "content": system.strip()}, {"role": role, "content": content.strip()}]
    return [{"role": role, "content": content}]
