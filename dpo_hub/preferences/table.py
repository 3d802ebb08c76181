"""The result of reading a source, before its columns are interpreted: numbered rows, and notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]


class Unreadable(str):
    """The reason why a row could not be read, in place of the row."""

    __slots__ = ()


Rows = Iterator[tuple[int, Row | Unreadable]]


def with_labels(rows: Rows, labels: Mapping[str, Sequence[str]]) -> Rows:
    """Restore class names, which `datasets` stores as numbers; *labels* maps columns to their names."""
    for number, row in rows:
        if isinstance(row, dict):
            for column, names in labels.items():
                place = row.get(column)
                if isinstance(place, int) and 0 <= place < len(names):
                    row[column] = names[place]
        yield number, row


class NotPlain(Exception):  # noqa: N818  # the careful reader takes over
    """The file is not as plain as it seemed."""


@dataclass(frozen=True)
class Plain:
    """A file that may be plain, for `files.plain`: a function that reads its columns, and the number of its first row.

    *mend* converts a cell to what the careful reader would return.
    """

    columns: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
    first: int = 1
    mend: Callable[[str], str] = str


@dataclass(frozen=True)
class Table:
    """The rows of a source, read lazily, each with its number as people see it.

    That is a spreadsheet row (the header is usually 1), a position in an array, or a line. `columns` is empty if each
    row has its own names, `plain` is set if the whole file may be plain, and `notes` says what the source was read as.
    As a context manager, it closes the file on exit.
    """

    rows: Rows
    columns: list[str] = field(default_factory=list)
    plain: Plain | None = None
    notes: list[str] = field(default_factory=list)
    opened: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *error: object) -> None:
        self.opened.close()
