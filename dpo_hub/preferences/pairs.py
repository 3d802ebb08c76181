"""A preference pair, and a file's worth of them. Knows nothing of files or models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Messages = Sequence[Mapping[str, str]]
"""A conversation or a part of one: `[{"role": "user", "content": "…"}, …]`."""


@dataclass(frozen=True)
class PreferencePair:
    """One validated preference: three lists of messages and the row of the source that it came from."""

    prompt: Messages
    chosen: Messages
    rejected: Messages
    row: int

    @property
    def messages(self) -> dict[str, list[dict[str, str]]]:
        """The pair as TRL's conversational format has it."""
        return {
            part: [{"role": m["role"], "content": m["content"]} for m in getattr(self, part)]
            for part in ("prompt", "chosen", "rejected")
        }

    @property
    def prompt_key(self) -> str:
        """Equal for pairs that ask the same thing."""
        return json.dumps([[m["role"], m["content"]] for m in self.prompt], ensure_ascii=False)


@dataclass(frozen=True)
class Preferences:
    """The pairs of one source, and what happened on the way.

    `left_out` maps a reason to the rows that gave no pair for it, numbered as `files.read_rows` does.
    """

    source: str
    layout: str
    pairs: Sequence[PreferencePair]
    left_out: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def sentence(self) -> str:
        """Say what the source was read as, and which rows were left out, for people."""
        used = f"{self.source}: {_count(len(self.pairs), 'pair')}, read as {self.layout}"
        if not self.left_out:
            return f"{used}; every row was used."
        reasons = "; ".join(f"{reason}: {_rows(rows)}" for reason, rows in self.left_out.items())
        return f"{used}; {_count(sum(map(len, self.left_out.values())), 'row')} left out ({reasons})."

    def report(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "layout": self.layout,
            "rows": len(self.pairs) + sum(map(len, self.left_out.values())),
            "pairs": len(self.pairs),
            "left_out": {reason: len(rows) for reason, rows in self.left_out.items()},
            "left_out_rows": {reason: list(rows[:20]) for reason, rows in self.left_out.items()},
            "sha256": digest(self.pairs),
        }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _rows(rows: Sequence[int]) -> str:
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
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)
