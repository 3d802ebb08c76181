"""Reads rows from JSON text (an array, JSON Lines, or an object that holds the rows) without loading all of it.

Text that cannot be parsed becomes one unreadable row, and reading continues where the next row begins. Each line above
the first value also becomes an unreadable row.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from itertools import chain, count
from typing import Any, TextIO

from ...errors import PreferencesError
from ..table import Row, Rows, Unreadable

MAX_ROW_CHARACTERS = 64 * 2**20
"""Maximum length of a row, and of a document that is a single object."""
CHUNK_CHARACTERS = 2**20
WINDOW_CHARACTERS = 2**16
"""How much of a multi-line value is examined at a time, because the parser counts the lines up to each error."""
SEEK_OVERLAP = 1_000
"""Maximum length of the beginning of a row, up to its first name."""

_decode = json.JSONDecoder(strict=False).raw_decode  # a raw line break in a string is a flaw, not a reason to stop
_BEGIN = re.compile(r"^(?:[^\S\n]|,)*+[\[{]", re.MULTILINE)
_BETWEEN = re.compile(r"[\s,]*")
_FIRST_KEY = re.compile(r'\{\s*"((?:[^"\\]|\\.)*)"')


def read_json(text: TextIO, *, known: Callable[[str], bool]) -> Rows:
    """Read the rows of *text*, numbered by their position in an array, otherwise by line.

    *known* says whether a name belongs to a row; an object without such a name may hold the rows under another name.

    Raises:
        PreferencesError: a row is longer than `MAX_ROW_CHARACTERS`.
    """
    head = text.read(CHUNK_CHARACTERS).lstrip("\ufeff")
    found = _BEGIN.search(head)
    if not found:
        return _lines(text, head)
    begin = found.end() - 1
    above = [_decoded(line) for line in map(str.strip, head[:begin].split("\n")) if not _BETWEEN.fullmatch(line)]
    if head[begin] == "[":
        values = _values(text, head, begin + 1, first=len(above) + 1)
        return chain(enumerate(above, 1), ((number, _row(value)) for number, value in values))
    first, _, rest = head[begin:].partition("\n")
    if rest.strip() and type(_decoded(first.strip())) is dict:
        return _lines(text, head)
    return chain(enumerate(above, 1), _document(_values(text, head, begin, by_line=True), known))


def _row(value: Any) -> Row | Unreadable:
    """Return *value* if it can be a row, otherwise why not."""
    if type(value) is dict or isinstance(value, Unreadable):
        return value
    return Unreadable(f"not an object with names and values but {_kind(value)}")


def _kind(value: Any) -> str:
    return {list: "a list", str: "text", type(None): "null", bool: "true or false"}.get(type(value), "a number")


def _lines(text: TextIO, chunk: str) -> Rows:
    """Read JSON Lines, one value per line. The rest of a line that is too long is skipped."""
    before, carry, too_long = 0, "", False
    while chunk:
        *lines, carry = (carry + chunk).split("\n")
        for number, line in enumerate(lines, before + 1):
            if stripped := "" if too_long else line.strip():
                yield number, _decoded(stripped)
            too_long = False
        before += len(lines)
        if len(carry) > MAX_ROW_CHARACTERS and not too_long:
            yield before + 1, Unreadable(f"longer than {MAX_ROW_CHARACTERS // 2**20} million characters")
            too_long = True
        if too_long:
            carry = ""
        chunk = text.read(CHUNK_CHARACTERS)
    if stripped := carry.strip():
        yield before + 1, _decoded(stripped)


def _decoded(line: str) -> Row | Unreadable:
    try:
        value, end = _decode(line)
    except (ValueError, RecursionError) as error:
        return _unreadable(error)
    return _row(value) if end == len(line) else Unreadable("not valid JSON (more after its end)")


def _unreadable(error: ValueError | RecursionError) -> Unreadable:
    told = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply, or a number too long"
    return Unreadable(f"not valid JSON ({told.removesuffix(' starting at').lower()})")


def _values(text: TextIO, head: str, at: int, *, by_line: bool = False, first: int = 1) -> Iterator[tuple[int, Any]]:
    """Yield consecutive JSON values, regardless of line breaks: those in arrays, unless numbered *by_line*."""
    window = _Window(text, head, at)
    key: str | None = None
    for place in count(first):
        window.trim()
        strange = not by_line and window.leave_array()
        if not window.skip_blank():
            return
        number = window.line() if by_line else place
        if strange:
            yield number, Unreadable("more after the end of the array")
            window.seek_object(key)
            continue
        value, end = _value(window.text, window.at)
        while end is None and window.grow():
            if len(window.text) - window.at > MAX_ROW_CHARACTERS:
                raise _too_long(number)
            value, end = _value(window.text, window.at)
        yield number, value
        if key is None:
            key = (found := _FIRST_KEY.match(window.text, window.at)) and found[1]
        if end is None or isinstance(value, Unreadable):
            window.seek_object(key)
        else:
            window.at = end


class _Window:
    """The part of a text that is in memory, and the current position in it."""

    def __init__(self, source: TextIO, text: str, at: int) -> None:
        self.text, self.at = text, at
        self._sources = [source]  # the last is read first
        self._lines, self._counted = 1, 0

    def line(self) -> int:
        """Return the number of the current line."""
        self._lines += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._lines

    def grow(self) -> bool:
        """Read as much again as is still ahead, so that a long value takes linear time; return False at the end."""
        more = ""
        while self._sources and not (more := self._sources[-1].read(max(WINDOW_CHARACTERS, len(self.text) - self.at))):
            self._sources.pop()
        self._show(self.text[self.at :] + more)
        return bool(more)

    def trim(self) -> None:
        """Discard text that has been read, and put back text far ahead if there is a lot of it."""
        if len(self.text) > 3 * WINDOW_CHARACTERS:
            end = self.at + WINDOW_CHARACTERS
            self._sources.append(io.StringIO(self.text[end:], newline=""))
            self._show(self.text[self.at : end])
        elif self.at > WINDOW_CHARACTERS // 4:
            self._show(self.text[self.at :])

    def _show(self, text: str) -> None:
        self.line()
        self.text, self.at, self._counted = text, 0, 0

    def leave_array(self) -> bool:
        """At the end of an array, go on to the next array or object; return True if anything else follows."""
        ended = False
        while self.skip_blank():
            sign = self.text[self.at]
            if sign != ("[" if ended else "]"):
                return ended and sign != "{"
            ended = not ended
            self.at += 1
        return False

    def skip_blank(self) -> bool:
        """Go to the next value; return False if there is none."""
        self.at = _BETWEEN.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches everything
        while self.at == len(self.text):
            if not self.grow():
                return False
            self.at = _BETWEEN.match(self.text).end()  # type: ignore[union-attr]
        return True

    def seek_object(self, key: str | None) -> None:
        """After a row that cannot be parsed, go to the next row: an object with the same first *key*."""
        pattern = re.compile(r'\{\s*"' + re.escape(key) + r'"\s*:' if key is not None else r"\n\s*\{")
        self.at += 1
        while not (found := pattern.search(self.text, self.at)):
            self.at = max(self.at, len(self.text) - SEEK_OVERLAP)
            if not self.grow():
                self.at = len(self.text)
                return
        self.at = found.start()


def _value(buffer: str, at: int) -> tuple[Any, int | None]:
    """Return the value that begins at *at*, and its end; None as the end means that it may extend beyond the buffer."""
    try:
        return _decode(buffer, at)
    except json.JSONDecodeError as error:
        cut = error.msg.startswith("Unterminated") or error.pos >= len(buffer) - 12  # as long as "\ud83d\ude00"
        return _unreadable(error), None if cut else at
    except (ValueError, RecursionError) as error:
        return _unreadable(error), at


def _document(values: Iterator[tuple[int, Any]], known: Callable[[str], bool]) -> Rows:
    """Read consecutive objects; a single one without a known name may hold the rows, or be a table by columns."""
    (number, value), following = next(values), next(values, None)
    if following is None and isinstance(value, dict) and (rows := _held(value, known)) is not None:
        values = chain(enumerate(rows, 1))
    else:
        values = chain([(number, value)], [following] if following else [], values)
    yield from ((number, _row(value)) for number, value in values)


def _held(document: Row, known: Callable[[str], bool]) -> list[Any] | None:
    cells = list(document.values())
    lists = [value for value in cells if isinstance(value, list) and value and isinstance(value[0], dict)]
    if len(lists) == 1 and not any(map(known, document)):
        return lists[0]
    if len(cells) > 1 and all(isinstance(cell, dict) and cell.keys() == cells[0].keys() for cell in cells):
        cells = [list(cell.values()) for cell in cells]  # as pandas writes a table
    plain = all(isinstance(cell, list) and len(cell) == len(cells[0]) and not lists for cell in cells)
    if len(cells) > 1 and plain:
        return [dict(zip(document, row, strict=True)) for row in zip(*cells, strict=True)]
    return None


def _too_long(number: int) -> PreferencesError:
    return PreferencesError(
        f"Row {number} is longer than {MAX_ROW_CHARACTERS // 2**20} million characters, the limit for one row. "
        "Is it one large object? Save it as JSON Lines, one row a line."
    )
