"""Rows to pairs: which column is the prompt, which the chosen and which the rejected reply."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import PreferencesError
from .files import EXTRA_CELLS, Row, read_rows
from .pairs import Messages, PreferencePair, Preferences

SHOWN_COLUMNS = 8


class _Unusable(Exception):  # noqa: N818  # it ends in a count, not in an error
    """Why a row gives no pair."""


def read_preferences(source: str | Path) -> Preferences:
    """Read preference pairs from a CSV or JSON file.

    The columns are `prompt, chosen, rejected`, or `instruction, input, chosen, rejected` (the input is put under the
    instruction), with an optional `system`. A cell is text or a list of chat messages; chosen and rejected may repeat
    the prompt before the reply. Rows without a usable pair are left out and counted by reason.

    Raises:
        PreferencesError: the file cannot be read, lacks a column, or holds no pair.
    """
    path = Path(source)
    rows = read_rows(path)
    if not rows:
        raise PreferencesError(f"{path} has no rows. Add pairs: prompt, chosen, rejected.")
    asked = _prompt_column(list(rows[0][1]), path)
    pairs, left_out = [], defaultdict(list)
    for number, row in rows:
        try:
            pairs.append(_pair(row, asked, number))
        except _Unusable as reason:
            left_out[str(reason)].append(number)
    if not pairs:
        reasons = ", ".join(f"{reason} ({len(numbers)})" for reason, numbers in left_out.items())
        raise PreferencesError(f"{path}: none of its {len(rows)} rows gives a pair: {reasons}. Fill in those cells.")
    return Preferences(path.name, f"{asked}, chosen, rejected", pairs, dict(left_out))


def _prompt_column(columns: Sequence[str], path: Path) -> str:
    """Name the column that holds the prompt, or say which of the columns needed is not there."""
    asked = next((name for name in ("prompt", "instruction") if name in columns), None)
    missing = [name for name in ("chosen", "rejected") if name not in columns]
    if asked and not missing:
        return asked
    lacking = ([] if asked else ["prompt (or instruction)"]) + missing
    found = ", ".join(repr(name) for name in columns[:SHOWN_COLUMNS]) + (" …" if len(columns) > SHOWN_COLUMNS else "")
    raise PreferencesError(
        f"{path} has no column {' and no column '.join(lacking)}; it has {found}. "
        "Rename the columns to prompt, chosen and rejected."
    )


def _pair(row: Row, asked: str, number: int) -> PreferencePair:
    if EXTRA_CELLS in row:
        raise _Unusable(f"{EXTRA_CELLS} (an unquoted delimiter?)")
    prompt = _prompt(row, asked)
    chosen, rejected = _reply(row, "chosen", prompt), _reply(row, "rejected", prompt)
    if chosen == rejected:
        raise _Unusable("chosen and rejected the same")
    return PreferencePair(prompt, chosen, rejected, number)


def _prompt(row: Row, asked: str) -> Messages:
    prompt = _messages(row, asked, "user")
    if not prompt:
        raise _Unusable("no prompt")
    if prompt[-1]["role"] == "assistant":
        raise _Unusable("a prompt that ends with the assistant")
    for extra in _messages(row, "input", "user"):
        prompt[-1]["content"] += f"\n\n{extra['content']}"
    return [*_messages(row, "system", "system"), *prompt]


def _reply(row: Row, column: str, prompt: Messages) -> Messages:
    """The messages of a reply, without the prompt where the cell repeats it."""
    reply = _messages(row, column, "assistant")
    for asked in (prompt, prompt[1:]):  # a system message may stand in its own column only
        if asked and reply[: len(asked)] == asked:
            reply = reply[len(asked) :]
    if not any(message["content"].strip() for message in reply):
        raise _Unusable(f"no {column}")
    if any(message["role"] != "assistant" for message in reply):
        raise _Unusable(f"a turn in {column} that is not the assistant's")
    return reply


def _messages(row: Row, column: str, role: str) -> list[dict[str, str]]:
    """The cell as chat messages: those it lists, or its text as one message of *role*, or none where it is blank."""
    cell = row.get(column)
    if isinstance(cell, str) and cell.lstrip().startswith("[{"):
        cell = _parsed(cell)
    if isinstance(cell, list):
        return [_message(item, column) for item in cell]
    if isinstance(cell, dict):
        raise _Unusable(f"neither text nor a list of chat messages in {column}")
    text = "" if cell is None else str(cell).strip()
    return [_message({"role": role, "content": text}, column)] if text else []


def _parsed(cell: str) -> Any:
    """Chat messages that were written into a cell of CSV as JSON, or the cell as it is where it is other text."""
    try:
        found = json.loads(cell)
    except json.JSONDecodeError:
        return cell
    return found if all(isinstance(item, dict) and "role" in item for item in found) else cell


def _message(item: Any, column: str) -> dict[str, str]:
    match item:
        case {"role": str(role), "content": str(content)}:
            try:
                content.encode()
            except UnicodeEncodeError:
                raise _Unusable(f"broken characters in {column}") from None
            return {"role": role, "content": content}
    raise _Unusable(f"something other than chat messages with role and content in {column}")
