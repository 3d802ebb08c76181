"""Rows to pairs: which column is the prompt, which the chosen and which the rejected reply."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import PreferencesError
from .files import EXTRA_CELLS, Row, read_rows
from .pairs import Messages, PreferencePair, Preferences

SHOWN_COLUMNS = 8


def read_preferences(source: str | Path) -> Preferences:
    """Read preference pairs from a CSV or JSON file.

    The columns are `prompt, chosen, rejected`, or `instruction, input, chosen, rejected` (the input is put under the
    instruction), with an optional `system`. A cell is text or a list of chat messages. Rows without a usable pair are
    left out and counted by reason.

    Raises:
        PreferencesError: the file cannot be read, lacks a column, or holds no pair.
    """
    path = Path(source)
    rows = read_rows(path)
    if not rows:
        raise PreferencesError(f"{path} has no rows. Add pairs: prompt, chosen, rejected.")
    asked = _prompt_column(list(rows[0]), path)
    pairs, left_out = [], defaultdict(list)
    for number, row in enumerate(rows, 1):
        try:
            prompt = _prompt(row, asked)
            chosen, rejected = _messages(row, "chosen", "assistant"), _messages(row, "rejected", "assistant")
        except PreferencesError as error:
            raise PreferencesError(f"{path}, row {number}, {error}") from error
        reason = (
            f"{EXTRA_CELLS} (an unquoted delimiter?)" if EXTRA_CELLS in row else _unusable(prompt, chosen, rejected)
        )
        if reason:
            left_out[reason].append(number)
        else:
            pairs.append(PreferencePair(prompt, chosen, rejected, number))
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


def _messages(row: Row, column: str, role: str) -> Messages:
    """The cell as chat messages: those it lists, or its text as one message of *role*, or none where it is blank."""
    cell = row.get(column)
    if isinstance(cell, list):
        return [_message(item, column) for item in cell]
    text = "" if cell is None else str(cell).strip()
    return [{"role": role, "content": text}] if text else []


def _message(item: Any, column: str) -> dict[str, str]:
    if isinstance(item, dict) and isinstance(item.get("role"), str) and isinstance(item.get("content"), str):
        return {"role": item["role"], "content": item["content"]}
    raise PreferencesError(
        f'column {column}: expected chat messages like {{"role": "user", "content": "…"}}, found {str(item)[:60]!r}.'
    )


def _prompt(row: Row, asked: str) -> Messages:
    prompt = _messages(row, asked, "user")
    extra = _messages(row, "input", "user") if asked == "instruction" else []
    if prompt and extra:
        prompt = [{"role": "user", "content": f"{prompt[0]['content']}\n\n{extra[0]['content']}"}]
    return [*_messages(row, "system", "system"), *prompt] if prompt else []


def _unusable(prompt: Messages, chosen: Messages, rejected: Messages) -> str | None:
    for part, messages in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
        if not any(m["content"].strip() for m in messages):
            return f"no {part}"
    return "chosen and rejected are the same" if chosen == rejected else None
