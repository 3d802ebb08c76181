r"""Reads text as rows: CSV and its variants, as found in practice. Does not interpret the columns.

Rows are read strictly by the csv module, in the dialect detected in the first `SAMPLE_CHARS` characters. If that fails,
the row is read again more leniently; only what still cannot be read is `Unreadable`.

Some texts are inherently ambiguous. Without an escaped quote as evidence, `\\` may be one backslash or two. A line
inside a broken quoted cell that has as many delimiters as a row looks like a row. Two stray quotes that enclose whole
cells look like real quotes, and a quote at the end of a line inside a cell looks like the end of the cell.
"""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TextIO

from ...errors import PreferencesError
from ..table import Row, Rows, Unreadable
from .dialect import Dialect, IsHeader, Known, candidates, parse_sample, scan

SAMPLE_CHARS = 1 << 17
MAX_CELL_CHARS = 1 << 24
MAX_ROW_CHARS = 4 * MAX_CELL_CHARS
MAX_REREAD_CHARS = 1 << 30
LINE_COST = 64  # the overhead of any line, as the number of characters read in the same time
ROW_COST = 1 << 10  # the same for finding out how a row is broken

LONG = "cells beyond the header (an unquoted delimiter?)"
QUOTES = "a quote is missing or one too many"
REMAINS = "what is left of a row above that cannot be read"
CUT_SHORT = "the file ends inside a quoted cell (cut short?)"
TOO_LONG = f"a cell of more than {MAX_CELL_CHARS:,} characters (a quote that is never closed?)"


@dataclass(frozen=True)
class Delimited:
    """A table that is read lazily as *rows* are consumed; each row has the number that a spreadsheet shows.

    Blank lines have a number but yield no rows. Cells missing in the file are missing in the row. *header_row* is 0 if
    the columns have no names; *skipped* are the numbers of the rows above the header.
    """

    dialect: Dialect
    columns: list[str]
    header_row: int
    skipped: list[int]
    rows: Rows


def read_delimited(
    text: TextIO, *, known: Known, dialect: Dialect | None = None, header: IsHeader | None = None
) -> Delimited:
    """Read *text*, opened with `newline=""`, as a table, row by row.

    Args:
        text: A stream; only its beginning and the current row are kept in memory.
        known: Whether a cell, stripped of white space, is a column name.
        dialect: The dialect, instead of a guess.
        header: Which of the first rows holds the names, instead of a guess.

    Raises:
        PreferencesError: while rows are consumed, if rereading broken rows would take too long.
    """
    sample, cut = _sample(text)
    told = re.match(r'"?sep=([^"\r\n])"?(?:\r\n?|\n)', sample)  # a line that Excel writes for its own use
    begin = told.end() if told else 0
    likely = [dialect] if dialect else candidates(sample, told[1] if told else ",;\t|")
    looks = (parse_sample(sample[begin:SAMPLE_CHARS], cut, one, known, header) for one in likely)
    look = max(looks, key=lambda look: look.score)
    header_row = look.place + 1 + bool(told) if look.place is not None else 0
    skipped = [place + 1 + bool(told) for place, cells in enumerate(look.rows[: look.place or 0]) if cells != [""]]
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_CHARS))  # global to the process, so never lowered
    lines = chain(io.StringIO(sample[begin + look.start :], newline=""), text)
    rows = _Reader(lines, look.dialect, look.columns).rows(header_row or int(bool(told)))
    return Delimited(look.dialect, look.columns, header_row, [1] * bool(told) + skipped, rows)


def _sample(text: TextIO) -> tuple[str, bool]:
    """Read the first lines of *text*, and return whether they exceed the sample that is examined."""
    lines, size = [], 0
    for line in text:
        lines.append(line)
        size += len(line)
        if size > SAMPLE_CHARS:
            break
    return "".join(lines).lstrip("\ufeff"), size > SAMPLE_CHARS


class _Reader:
    """Turns lines into rows. Keeps the lines of the current row so that they can be read again."""

    def __init__(self, lines: Iterator[str], dialect: Dialect, columns: list[str]) -> None:
        self.lines, self.dialect, self.columns = lines, dialect, columns
        self.row: list[str] = []
        self.back: deque[str] = deque()  # lines to read again
        self.reread = 0
        self.widths = {len(columns)}  # of the rows so far
        self.held: tuple[int, Row | Unreadable] | None = None  # a row that counts if a complete one follows
        self.lost = False  # no complete row has followed since an unreadable one
        self.short = False  # whether the previous row was short
        self.wary = False  # any of the three, which makes the next row doubtful

    def __iter__(self) -> Iterator[str]:
        row, size = self.row, 0
        for line in chain(_drain(self.back), self.lines):
            size = size + len(line) if row else len(line)
            row.append(line)
            if size > MAX_ROW_CHARS:
                raise csv.Error("row larger than the limit")
            yield line

    def rows(self, number: int) -> Rows:
        """Yield the rows that follow row *number*."""
        columns, width, row = self.columns, len(self.columns), self.row
        reason = QUOTES
        while reason:
            reason = ""
            try:
                for cells in self.dialect.reader(self):
                    number += 1
                    if len(cells) == width and not self.wary:
                        yield number, dict(zip(columns, cells, strict=False))
                    elif self._suspicious(cells):
                        reason = QUOTES
                        break
                    elif cells:
                        yield from self._settle(number, cells)
                    row.clear()
            except csv.Error as error:
                number += 1
                reason = TOO_LONG if "limit" in str(error) else CUT_SHORT if "end of data" in str(error) else QUOTES
            if reason:
                yield from self._settle(number, *self._read_again(number, reason))
                row.clear()
        if self.held:
            yield self.held

    def _suspicious(self, cells: list[str]) -> bool:
        """Whether a row of several lines is really several rows joined by a stray quote."""
        wrong = len(cells) != len(self.columns)
        if len(self.row) == 1 or not (wrong or self.wary):
            return False
        each = all(line.count(self.dialect.delimiter) == len(self.columns) - 1 for line in self.row)
        return not self._flawless() or (wrong and (self.wary or each))

    def _flawless(self) -> bool:
        """Whether the current row is formatted correctly."""
        return [] not in scan("".join(self.row), False, self.dialect)[0]

    def _settle(self, number: int, cells: list[str], reason: str = "", sure: bool = True) -> Rows:
        """Yield the held row, reassessed given *cells*, and then the row of *cells*; hold that one if not *sure*."""
        held, broken = self.held, self.lost or self.held is not None
        if not reason and (broken or self.short) and not self._is_complete_row(cells, broken):
            reason, sure = QUOTES, True
        if held:
            yield (held[0], Unreadable(QUOTES)) if reason else held
        row = Unreadable(REMAINS if broken else reason) if reason else self._row(cells)
        self.lost, self.short = bool(reason), not reason and len(cells) < len(self.columns)
        self.held = None if sure else (number, row)
        self.wary = self.lost or self.short or not sure
        if sure:
            yield number, row

    def _is_complete_row(self, cells: list[str], broken: bool) -> bool:
        """Whether *cells* are a row, and not the rest of a row above with broken quotes."""
        if broken and len(cells) not in self.widths:
            return False
        doubtful = self.lost or (self.short and len(cells) >= len(self.columns))
        return not doubtful or self._flawless()

    def _row(self, cells: list[str]) -> Row | Unreadable:
        if any(cells[len(self.columns) :]):
            return Unreadable(LONG)
        self.widths.add(len(cells))
        return dict(zip(self.columns, cells, strict=False))

    def _read_again(self, number: int, reason: str) -> tuple[list[str], str, bool]:
        """Read the current row with its stray quotes fixed, or otherwise its first line alone.

        Returns:
            The cells, the reason if there are none, and whether that is certain.
        """
        self._push_back(number)
        mended = self.dialect.mended
        if any(mended(line) != line for line in self.back):
            cells = self._first(self.dialect.reader(map(mended, self), mended=True))
            if cells:
                return cells, "", True
            self._push_back(number)
        self.row.append(self.back.popleft())
        line = self.row[0].rstrip("\r\n")
        cells = self._first(iter([[self.dialect.bare(cell) for cell in line.split(self.dialect.delimiter)]]))
        cells = cells or self._first(self.dialect.reader([line], strict=False))
        if reason == CUT_SHORT and not self.back and cells and cells[-1].startswith(self.dialect.quotechar):
            return [], reason, True
        return cells, "" if cells else reason, not cells

    def _first(self, rows: Iterator[list[str]]) -> list[str]:
        """Return the first of *rows* if it has one cell per column and none is too long."""
        try:
            cells = next(rows, [])
        except csv.Error:
            return []
        return cells if len(cells) == len(self.columns) and max(map(len, cells)) <= MAX_CELL_CHARS else []

    def _push_back(self, number: int) -> None:
        self.reread += sum(map(len, self.row)) + LINE_COST * len(self.row) + ROW_COST
        if self.reread > MAX_REREAD_CHARS:
            raise PreferencesError(
                f"Row {number:,}: quotes open and close so wildly, here and above, that reading on would take too "
                "long. Save the table again, with the quotes inside cells doubled, or as JSON Lines."
            )
        self.back.extendleft(reversed(self.row))
        self.row.clear()


def _drain(back: deque[str]) -> Iterator[str]:
    while back:
        yield back.popleft()
