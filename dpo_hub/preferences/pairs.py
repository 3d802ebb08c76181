"""A preference pair, and a source's worth of them. Knows nothing of files or models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]
"""`{"role": "user", "content": "…"}`; a turn that calls a tool, or answers such a call, has further keys."""
Messages = Sequence[Message]
"""A conversation or a part of one."""

SHOWN_REASONS = 5
SHOWN_ROWS = 20
"""Rows that a report names for each reason."""


@dataclass(frozen=True)
class PreferencePair:
    """One validated preference: three lists of messages and the row of the source that it came from.

    `tools` and `chat_template_kwargs` go to the chat template as TRL passes them.
    """

    prompt: Messages
    chosen: Messages
    rejected: Messages
    row: int
    tools: Sequence[Any] = ()
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> dict[str, Any]:
        """The pair as TRL's conversational format has it."""
        pair: dict[str, Any] = {
            part: [dict(message) for message in getattr(self, part)] for part in ("prompt", "chosen", "rejected")
        }
        further = {"tools": list(self.tools), "chat_template_kwargs": dict(self.chat_template_kwargs)}
        return pair | {name: value for name, value in further.items() if value}

    @property
    def prompt_key(self) -> str:
        """Equal for pairs that ask the same thing."""
        return json.dumps([[m["role"], m["content"]] for m in self.prompt], ensure_ascii=False)


@dataclass(frozen=True)
class Preferences:
    """The pairs of one source, and what happened on the way.

    `layout` is what the source was read as, `columns` which column each part came from, and `notes` what was done to
    read the file. `left_out` maps a reason to the rows that gave no pair for it, numbered as `table.Table` says;
    `rows` counts all of them. The pairs may lie in a file (`pairfile.PairFile`) rather than in memory.
    """

    source: str
    layout: str
    pairs: Sequence[PreferencePair]
    left_out: Mapping[str, Sequence[int]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    rows: int = 0

    def read_as(self) -> str:
        """Say which layout was recognised, and where each part came from: A/B test; prompt, winner ← `pref`."""
        parts = self.columns.items()
        mapping = ", ".join(part if part == column else f"{part} ← `{column}`" for part, column in parts)
        return f"{self.layout}; {mapping}" if mapping else self.layout

    def sentence(self) -> str:
        """Say what the source was read as, and which rows were left out, for people."""
        used = f"{self.source}: {counted(len(self.pairs), 'pair')}, read as: {self.read_as()}"
        if not self.left_out:
            return f"{used}. Every row was used."
        often = sorted(self.left_out.items(), key=lambda item: -len(item[1]))
        reasons = "; ".join(f"{reason}: {rows_named(rows)}" for reason, rows in often[:SHOWN_REASONS])
        reasons += f"; and {counted(len(often) - SHOWN_REASONS, 'more reason')}" if len(often) > SHOWN_REASONS else ""
        return f"{used}. {counted(sum(map(len, self.left_out.values())), 'row')} left out ({reasons})."

    def report(self) -> dict[str, Any]:
        """The same as data, for `check --json` and for report.json of a run."""
        return {
            "source": self.source,
            "layout": self.layout,
            "mapping": dict(self.columns),
            "notes": list(self.notes),
            "rows": self.rows or len(self.pairs) + sum(map(len, self.left_out.values())),
            "pairs": len(self.pairs),
            "left_out": {reason: len(rows) for reason, rows in self.left_out.items()},
            "left_out_rows": {reason: list(rows[:SHOWN_ROWS]) for reason, rows in self.left_out.items()},
        }


def counted(number: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def rows_named(rows: Sequence[int]) -> str:
    """`row 2`, `rows 2, 3, 9 …`."""
    return f"row{'s' * (len(rows) != 1)} {', '.join(map(str, rows[:5]))}{' …' if len(rows) > 5 else ''}"


def digest(pairs: Iterable[PreferencePair]) -> str:
    """SHA-256 of the pairs' text, in order: what a run was trained on, whatever file it came in."""
    hashed = hashlib.sha256()
    for pair in pairs:
        hashed.update(json.dumps(pair.messages, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return hashed.hexdigest()


def text_of(messages: Messages) -> str:
    """The words of *messages* for people to read; roles are named only where there are several messages."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)
