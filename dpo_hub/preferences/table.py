"""What reading a source gives before anyone knows what its columns mean: numbered rows, and notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]


class Unreadable(str):
    """Why a row could not be read; it stands where the row would."""

    __slots__ = ()


Rows = Iterator[tuple[int, Row | Unreadable]]


def with_labels(rows: Rows, labels: Mapping[str, Sequence[str]]) -> Rows:
    """Put the names of classes back, which `datasets` stores as numbers; *labels* has them by column."""
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
    """A file that may be plain, which `files.plain` reads: how to get columns of it, and the number of its first row.

    *mend* gives a cell as the careful reader would.
    """

    columns: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
    first: int = 1
    mend: Callable[[str], str] = str


@dataclass(frozen=True)
class Table:
    """The rows of a source, read as they are asked for, each with its number as people see it.

    That is a spreadsheet's row (the header is usually 1), a place in an array, or a line. `columns` is empty where the
    rows have names of their own, `plain` is there where the whole file may be plain, and `notes` says what the source
    was read as. A context manager: the file is open until its end.
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
