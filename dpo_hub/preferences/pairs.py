"""A preference pair, and all pairs of a source. Independent of file formats and models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]
"""`{"role": "user", "content": "…"}`; a turn that calls a tool, or answers such a call, has more keys."""
Messages = Sequence[Message]
"""A conversation or a part of one."""

SHOWN_REASONS = 5
SHOWN_ROWS = 20
"""Maximum number of rows that a report names for each reason."""


@dataclass(frozen=True)
class PreferencePair:
    """One validated preference pair: three lists of messages, and the source row that it came from.

    `tools` and `chat_template_kwargs` are for the chat template, as in TRL.
    """

    prompt: Messages
    chosen: Messages
    rejected: Messages
    row: int
    tools: Sequence[Any] = ()
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> dict[str, Any]:
        """The pair in TRL's conversational format."""
        pair: dict[str, Any] = {
            part: [dict(message) for message in getattr(self, part)] for part in ("prompt", "chosen", "rejected")
        }
        further = {"tools": list(self.tools), "chat_template_kwargs": dict(self.chat_template_kwargs)}
        return pair | {name: value for name, value in further.items() if value}

    @property
    def prompt_key(self) -> str:
        """A key that is equal for pairs with the same prompt."""
        return json.dumps([[m["role"], m["content"]] for m in self.prompt], ensure_ascii=False)


@dataclass(frozen=True)
class Preferences:
    """The pairs of one source, and how they were read.

    `layout` is the layout the source was read as, `columns` maps each part to its column, and `notes` says how the file
    was read. `left_out` maps each reason to the rows that yielded no pair because of it, numbered as in `table.Table`;
    `rows` counts all rows of the source. The pairs may be in a file (`pairfile.PairFile`) and not in memory.
    """

    source: str
    layout: str
    pairs: Sequence[PreferencePair]
    left_out: Mapping[str, Sequence[int]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    rows: int = 0

    def read_as(self) -> str:
        """Describe the recognised layout and the column of each part: A/B test; prompt, winner ← `pref`."""
        parts = self.columns.items()
        mapping = ", ".join(part if part == column else f"{part} ← `{column}`" for part, column in parts)
        return f"{self.layout}; {mapping}" if mapping else self.layout

    def sentence(self) -> str:
        """Describe in words what the source was read as, and which rows were left out."""
        used = f"{self.source}: {pluralise(len(self.pairs), 'pair')}, read as: {self.read_as()}"
        if not self.left_out:
            return f"{used}. Every row was used."
        often = sorted(self.left_out.items(), key=lambda item: -len(item[1]))
        reasons = "; ".join(f"{reason}: {format_rows(rows)}" for reason, rows in often[:SHOWN_REASONS])
        reasons += f"; and {pluralise(len(often) - SHOWN_REASONS, 'more reason')}" if len(often) > SHOWN_REASONS else ""
        return f"{used}. {pluralise(sum(map(len, self.left_out.values())), 'row')} left out ({reasons})."

    def report(self) -> dict[str, Any]:
        """Return the same as data, for `check --json` and for the report.json of a run."""
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


def pluralise(number: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def format_rows(rows: Sequence[int]) -> str:
    """`row 2`, `rows 2, 3, 9 …`."""
    return f"row{'s' * (len(rows) != 1)} {', '.join(map(str, rows[:5]))}{' …' if len(rows) > 5 else ''}"


def digest(pairs: Iterable[PreferencePair]) -> str:
    """SHA-256 of the pairs, in order. It identifies the training data of a run, whatever file format it came in."""
    hashed = hashlib.sha256()
    for pair in pairs:
        hashed.update(json.dumps(pair.messages, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return hashed.hexdigest()


def text_of(messages: Messages) -> str:
    """Return the text of *messages* for people to read; roles are shown only if there are several messages."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)
