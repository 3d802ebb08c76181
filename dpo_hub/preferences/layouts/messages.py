"""Converts one cell to chat messages, in whatever form it is written. Independent of columns and layouts."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ..pairs import Messages
from .transcripts import ROLES, WORDS, parse_transcript, without_last_token

Part = str | list[dict[str, Any]]
"""A part of a pair. Plain text means one message with the part's usual role, and is by far the fastest form."""

_BRACKETS = ("[", "{")
_NOT_PLAIN = (*_BRACKETS, "<", *WORDS)
NOT_PLAIN = rf"\A(?:'|{'|'.join(map(re.escape, _NOT_PLAIN))})"
"""Beginnings of text that may not be plain, or that guards a formula; it may also end with `LAST`. RE2 syntax."""
LAST = ">"
_SUSPECT = "".join({start[0] for start in _NOT_PLAIN})
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # a lone surrogate, which JSON can write but no text file can hold
_SPOKEN = frozenset(("content", "parts", "text", "tool_calls"))
_IMAGES = frozenset(
    "image image_url input_image video audio input_audio inlineData fileData inline_data file_data".split()
)


class Unusable(Exception):  # noqa: N818  # it is counted, not reported as an error
    """The reason why a row yields no pair."""


def part_of(cell: Any, what: str) -> Part:
    """Return the text or the messages in *cell*, empty if it is blank; *what* names the part in error messages.

    A cell may hold text, one message, a list of messages, either of them written as JSON or Python, or a rendered
    chat. The key of the speaker may be `role` or `from`; that of the text `content`, `value`, `text` or `parts`.

    Raises:
        Unusable: it holds something else.
    """
    if isinstance(cell, str):
        text = cell.strip()
        return text if is_plain(text) else _parsed(_require_no_surrogates(text, what), what)
    if is_blank(cell):
        return ""
    if isinstance(cell, Mapping):
        return [message_of(cell, what)]
    if isinstance(cell, list):
        return _listed(cell, what)
    if isinstance(cell, bytes):
        raise Unusable(f"bytes, not text, in {what}")
    return str(cell)


def is_blank(cell: Any) -> bool:
    """Whether *cell* is empty, in any of the ways that tables represent it."""
    return (
        cell is None or (isinstance(cell, str) and not cell.strip()) or (isinstance(cell, float) and math.isnan(cell))
    )


def is_plain(cell: Any) -> bool:
    """Whether *cell*, already stripped, is text that `part_of` returns unchanged: a fast test for the usual case."""
    return (
        type(cell) is str
        and cell != ""
        and not (cell[0] in _SUSPECT and cell.startswith(_NOT_PLAIN))
        and not (cell[-1] == LAST and without_last_token(cell) != cell)
        and (cell.isascii() or not _LONE_SURROGATE.search(cell))
    )


def as_messages(part: str | Messages, role: str) -> list[dict[str, Any]]:
    """Return *part* as a list of messages; plain text gets the role *role*."""
    if isinstance(part, str):
        return [{"role": role, "content": part}] if part else []
    return [dict(message) for message in part]


def message_of(item: Any, what: str) -> dict[str, Any]:
    """Return one message in the form that chat templates expect.

    Raises:
        Unusable: it is not a message, or it has an image.
    """
    if not isinstance(item, Mapping):
        raise Unusable(f"something other than chat messages in {what}")
    speaker = item.get("role") or item.get("from")
    content = next((item[key] for key in ("content", "value", "text", "parts") if item.get(key) is not None), None)
    if speaker == "function_call" and isinstance(content, str):
        return {"role": "assistant", "content": "", "tool_calls": _tool_calls(content, what)}
    further = {key: item[key] for key in ("tool_calls", "tool_call_id", "name") if item.get(key)}
    if not isinstance(speaker, str) or (content is None and not further):
        raise Unusable(f"something other than chat messages with role and content in {what}")
    role = ROLES.get(speaker.strip().lower())
    if role is None:
        raise Unusable(f"a role that is not known in {what} ({speaker[:20]!r})")
    return {"role": role, "content": _require_no_surrogates(_words(content, what), what), **further}


def is_messages(value: Any) -> bool:
    """Whether *value* is a list of messages, judging by its first item."""
    return isinstance(value, list) and bool(value) and _is_message(value[0])


def loaded(text: str) -> Any:
    """Parse *text* as JSON or a Python literal; None if it is neither."""
    for load in (json.loads, ast.literal_eval):
        try:
            return load(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def listed(cell: Any) -> list[Any]:
    """The list in a cell, which may be written as text; empty if there is none."""
    found = loaded(cell) if isinstance(cell, str) else cell
    return found if isinstance(found, list) else []


def objects(cell: Any, what: str) -> list[dict[str, Any]]:
    """The list of objects in a cell.

    Raises:
        Unusable: it holds something else.
    """
    found = listed(cell)
    if not all(isinstance(item, dict) for item in found):
        raise Unusable(f"something other than a list of objects in {what}")
    return found


def _is_message(item: Any) -> bool:
    """Whether *item* has the keys of a message; other JSON may use "from" for a place or "role" for a job."""
    if not isinstance(item, Mapping):
        return False
    return ("from" in item and "value" in item) or ("role" in item and not _SPOKEN.isdisjoint(item))


def _parsed(text: str, what: str) -> Part:
    if text.startswith(_BRACKETS) and any(key in text for key in ("role", "from")):
        found = loaded(text)
        if is_messages(found):
            return _listed(found, what)
        if _is_message(found):
            return [message_of(found, what)]
    return parse_transcript(text) or without_last_token(text)


def _listed(items: list[Any], what: str) -> Part:
    if len(items) == 1 and isinstance(items[0], str):
        return part_of(items[0], what)
    return [message_of(item, what) for item in items]


def _words(content: Any, what: str) -> str:
    """The text of a message's content, which may consist of parts."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise Unusable(f"something other than chat messages with role and content in {what}")
    words = []
    for piece in content:
        if isinstance(piece, str):
            words.append(piece)
        elif isinstance(piece, Mapping) and isinstance(piece.get("text"), str):
            words.append(piece["text"])
        elif isinstance(piece, Mapping) and (not _IMAGES.isdisjoint(piece) or str(piece.get("type")) in _IMAGES):
            raise Unusable(IMAGE)
        else:
            raise Unusable(f"something other than text in {what}")
    return "\n".join(words)


IMAGE = "an image or other media (only text can be trained on)"


def _tool_calls(written: str, what: str) -> list[dict[str, Any]]:
    """The tool calls of a ShareGPT turn: an object with name and arguments, or a list of them."""
    found = loaded(written)
    calls = found if isinstance(found, list) else [found]
    if not all(isinstance(call, Mapping) and "name" in call for call in calls):
        raise Unusable(f"a function call that is not JSON with name and arguments in {what}")
    return [{"type": "function", "function": dict(call)} for call in calls]


def _require_no_surrogates(text: str, what: str) -> str:
    if not text.isascii() and _LONE_SURROGATE.search(text):
        raise Unusable(f"broken characters in {what}")
    return text
