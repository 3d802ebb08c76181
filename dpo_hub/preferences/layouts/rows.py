"""Building blocks of all layouts: they turn rows into draft pairs or reasons, and locate the prompt's columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from ..pairfile import Draft
from ..table import Row, Rows, Unreadable
from .columns import Columns
from .drafts import PromptParts
from .messages import IMAGE, Unusable, as_messages, is_blank, is_messages, loaded, part_of


class LeftOut(NamedTuple):
    """A row that yields no pair, and why."""

    row: int
    reason: str


Item = Draft | LeftOut
Read = Callable[[Rows], Iterator[Item]]
Kind = TypeVar("Kind", list[Any], dict[str, Any])

MEDIA = ("images", "image", "videos", "video", "audios", "audio")
"""Columns with media that belong to a row's text and cannot be trained on."""


@dataclass(frozen=True)
class Layout:
    """A recognised layout; *columns* says which column each part comes from.

    *plain* names the columns of prompt, chosen and rejected if a row's pair consists of just these three cells.
    """

    name: str
    columns: dict[str, str]
    read: Read
    plain: tuple[str, ...] = ()


def row_by_row(pairs: Callable[[int, Row], Iterable[Draft]]) -> Read:
    """Read a source row by row."""

    def read(rows: Rows) -> Iterator[Draft | LeftOut]:
        for number, row in rows:
            try:
                yield from pairs(number, usable(row))
            except Unusable as reason:
                yield LeftOut(number, EMPTY if is_empty(row) else str(reason))

    return read


def text_only(layout: Layout, columns: Columns) -> Layout:
    """Leave out rows that have an image or other media in addition to their text."""
    media = [found for name in MEDIA if (found := columns.named(name))]

    def read(rows: Rows) -> Iterator[Item]:
        return layout.read((number, _without_media(row, media)) for number, row in rows)

    return replace(layout, read=read, plain=()) if media else layout


def _without_media(row: Row | Unreadable, media: Iterable[str]) -> Row | Unreadable:
    if isinstance(row, dict) and any(row.get(name) and row[name] != "[]" for name in media):
        return Unreadable(IMAGE)
    return row


EMPTY = "an empty row"


def usable(row: Row | Unreadable) -> Row:
    """Return a readable row; raise Unusable for an unreadable one."""
    if isinstance(row, str):
        raise Unusable(row)
    return row


def is_empty(row: Row | Unreadable) -> bool:
    return isinstance(row, dict) and not any(cell.strip() if isinstance(cell, str) else cell for cell in row.values())


@dataclass(frozen=True)
class PromptColumns:
    """The columns of the prompt and of everything that belongs to it."""

    prompt: str | None = None
    system: str | None = None
    input: str | None = None
    history: str | None = None
    tools: str | None = None
    chat_template_kwargs: str | None = None

    @classmethod
    def among(cls, columns: Columns, *, taken: Iterable[str | None] = (), prompt: str | None = None) -> PromptColumns:
        """Find the columns by name; *prompt* is the prompt column if it is already known."""
        taken = list(taken)
        prompt = prompt or columns.find("prompt", without=taken)
        under, history = (columns.find(part, without=[*taken, prompt]) for part in ("input", "history"))
        further = (columns.named(name) for name in ("tools", "chat_template_kwargs"))
        return cls(prompt, columns.find("system", without=taken), under, history, *further)

    @property
    def columns(self) -> dict[str, str]:
        return {part: name for part, name in vars(self).items() if name}

    def of(self, row: Row) -> PromptParts:
        """Return the prompt of *row* and everything that belongs to it."""
        prompt = part_of(row.get(self.prompt), "prompt") if self.prompt else ""
        if self.alone:
            return PromptParts(prompt)
        before = as_messages(part_of(row.get(self.system or ""), "system"), "system") + _past(
            row.get(self.history or "")
        )
        under = part_of(row.get(self.input or ""), "input")
        kwargs = _literal(row.get(self.chat_template_kwargs or ""), dict, "chat_template_kwargs")
        return PromptParts(prompt, before, under, tools_of(row.get(self.tools or "")), kwargs or None)

    @property
    def alone(self) -> bool:
        """Whether there is only the prompt, the usual and fastest case."""
        return not (self.system or self.input or self.history or self.tools or self.chat_template_kwargs)


def tools_of(cell: Any) -> list[Any]:
    """Return the list of tools in a cell, which may be written as text.

    Raises:
        Unusable: it holds something else.
    """
    return _literal(cell, list, "tools")


def _literal(cell: Any, kind: type[Kind], what: str) -> Kind:
    """Return the list or object in a cell, which may be written as text; an empty one if the cell is blank."""
    if is_blank(cell) or cell in ("null", "None"):
        return kind()
    found = loaded(cell) if isinstance(cell, str) else cell
    if not isinstance(found, kind):
        raise Unusable(f"something other than a {kind.__name__} in {what}")
    return found


def _past(cell: Any) -> list[dict[str, Any]]:
    """Return the earlier turns, from messages or from `[question, answer]` pairs as in Alpaca files."""
    part = part_of(cell, "history") if isinstance(cell, str) or is_messages(cell) else ""
    if not isinstance(part, str):
        return part
    turns = loaded(part) if part else cell or []
    if not isinstance(turns, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in turns):
        raise Unusable("a history that is neither messages nor pairs of question and answer")
    return [
        message
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
        for message in as_messages(part_of(text, "history"), role)
    ]
