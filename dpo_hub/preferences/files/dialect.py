"""Guesses the dialect and the header of a text table from its beginning.

The best candidate is the one with the most known column names and the fewest rows that do not fit. Quotes count as
doubled unless backslash escapes fit better.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

SAMPLE_ROWS = 2000
HEADER_ROWS = 20

Known = Callable[[str], bool]
IsHeader = Callable[[list[str]], bool]

_QUOTE, _DELIMITER = "\udc22", "\udc2c"  # stand-ins for literal ones; no decoder produces these code points
_LINE_END = re.compile(r"\r\n?|\n")
_NAME = re.compile(r"[^\W\d](?:[^.?!\r\n]|[.?!](?=\w)){0,60}")  # neither a number nor a sentence


@dataclass(frozen=True)
class Dialect:
    """How cells are separated. Quotes inside quotes are doubled or, with *backslash*, escaped.

    With *spaced*, spaces after a delimiter are not part of the cell.
    """

    delimiter: str = ","
    quotechar: str = '"'
    backslash: bool = False
    spaced: bool = False

    @property
    def description(self) -> str:
        """The dialect in words: "semicolons", or "tabs, quotes escaped with backslashes"."""
        names = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
        name = names.get(self.delimiter, repr(self.delimiter))
        single = ", single quotes" if self.quotechar == "'" else ""
        return name + single + ", quotes escaped with backslashes" * self.backslash

    def reader(self, lines: Iterable[str], *, strict: bool = True, mended: bool = False) -> Iterator[list[str]]:
        """Read *lines* with the csv module; a backslash that escapes nothing is kept."""
        if self.backslash:  # the module's own escapes are never strict
            lines = (self._escape.sub(self._stand_in, line) if "\\" in line else line for line in lines)
        rows = csv.reader(
            lines, delimiter=self.delimiter, quotechar=self.quotechar, skipinitialspace=self.spaced, strict=strict
        )
        return map(self._restored, rows) if self.backslash or mended else rows

    def _stand_in(self, found: re.Match[str]) -> str:
        return {self.quotechar: _QUOTE, self.delimiter: _DELIMITER}.get(found[1], found[1])

    def _restored(self, cells: list[str]) -> list[str]:
        return [cell.replace(_QUOTE, self.quotechar).replace(_DELIMITER, self.delimiter) for cell in cells]

    def mended(self, line: str) -> str:
        """Treat quotes in *line* as text if their neighbours show that they neither open nor close a cell."""
        return self._stray.sub(lambda found: found[0][:-1] + _QUOTE, line)

    def bare(self, cell: str) -> str:
        """Remove the quotes from *cell* if it is quoted."""
        found = self.cell.fullmatch(cell.strip(" "))
        if not found or found[2] is not None or not found[1].startswith(self.quotechar):
            return cell
        inner = found[1][1:-1]
        return self._escape.sub(r"\1", inner) if self.backslash else inner.replace(self.quotechar * 2, self.quotechar)

    @cached_property
    def cell(self) -> re.Pattern[str]:
        """Pattern with three groups: a correctly formatted cell (1), whether it is still open (2), what ends it (3)."""
        quote, end = re.escape(self.quotechar), re.escape(self.delimiter)
        special, doubled, escaped = (r"\\", "", r"|\\.") if self.backslash else ("", f"|{quote * 2}", "")
        quoted = rf"{quote}(?:[^{quote}{special}]++{doubled}{escaped})*+(?:{quote}|(\Z))"
        plain = rf"(?:[^{quote}{end}\r\n{special}]++{escaped})*+"
        return re.compile(rf"(?s){' *+' * self.spaced}({quoted}|{plain})({end}|\r\n?|\n|\Z)")

    @cached_property
    def _escape(self) -> re.Pattern[str]:
        return re.compile(rf"\\([\\{re.escape(self.quotechar + self.delimiter)}])")

    @cached_property
    def _stray(self) -> re.Pattern[str]:
        quote, end = re.escape(self.quotechar), re.escape(self.delimiter) + r"\r\n"
        escape = r"\\" * self.backslash
        return re.compile(rf"(?<=[^{end}{quote}{escape}])(?:{quote}{quote})*+{quote}(?=[^{end}{quote}])")


def candidates(sample: str, delimiters: str) -> Iterator[Dialect]:
    """Yield the dialects that *sample* may be in, more likely ones first."""
    yield Dialect(delimiters[0])
    for quote, backslash, spaced, delimiter in product("\"'", (False, True), (False, True), delimiters):
        signs = [delimiter, *["\\" + quote] * backslash, *[f"{delimiter} {quote}"] * spaced]
        likely = quote == '"' or sample.count(quote + delimiter) > sample.count('"' + delimiter)
        if likely and all(sign in sample for sign in signs):
            yield Dialect(delimiter, quote, backslash, spaced)


@dataclass(frozen=True)
class ParsedSample:
    """A sample read in one dialect: its rows, the header's index among them, and where the data starts."""

    dialect: Dialect
    rows: list[list[str]]
    place: int | None
    start: int
    columns: list[str]
    score: tuple[float, ...]


def parse_sample(sample: str, cut: bool, dialect: Dialect, known: Known, header: IsHeader | None) -> ParsedSample:
    rows, ends, tight = scan(sample, cut, dialect)
    place, names = _header(rows, known, header)
    top = 0 if place is None else place + 1
    body = [cells for cells in rows[top:] if cells != [""]]
    usual = Counter(len(cells) for cells in body if cells).most_common(1)
    columns = _columns(rows[place] if place is not None else [""] * usual[0][0] if usual else [""])
    width = len(columns)
    fit = sum(bool(cells) and _fits(cells, width) for cells in body) / max(1, len(body))
    score = (names, width > 1, fit if names else fit * tight)
    return ParsedSample(dialect, rows, place, ends[top - 1] if top else 0, columns, score)


def _fits(cells: list[str], width: int) -> bool:
    return len(cells) == width or (len(cells) > width and not any(cells[width:]))


def scan(sample: str, cut: bool, dialect: Dialect) -> tuple[list[list[str]], list[int], float]:
    """Split *sample* by the dialect's grammar.

    Returns:
        Its rows ([] where the grammar is broken), the ends of the rows, and the share of cells that do not begin with a
        space: commas in prose are followed by a space, and delimiters hardly ever.
    """
    rows: list[list[str]] = []
    ends: list[int] = []
    cells: list[str] = []
    at, blanks, count = 0, 0, 1
    while at < len(sample) and len(rows) < SAMPLE_ROWS:
        found = dialect.cell.match(sample, at)
        if cut and found and not found[3]:  # the last row, which is cut off; if it starts early, it is broken
            rows += [[]] * (4 * at < 3 * len(sample))
            break
        if found and found[2] is None:
            blanks += bool(cells) and found[0].startswith(" ")
            count += 1
            cells.append(dialect.bare(found[1]) if len(rows) < HEADER_ROWS else found[1])
            at = found.end()
            if found[3] == dialect.delimiter:
                if at < len(sample):
                    continue
                cells.append("")
        else:
            end = _LINE_END.search(sample, at)
            cells, at = [], end.end() if end else len(sample)
        rows.append(cells)
        ends.append(at)
        cells = []
    return rows, ends, 1 - blanks / count


def _header(rows: list[list[str]], known: Known, header: IsHeader | None) -> tuple[int | None, int]:
    """Find the header among the first of *rows*, and count its known names."""
    first = [(place, [_name(cell) for cell in cells]) for place, cells in enumerate(rows[:HEADER_ROWS]) if any(cells)]
    if header:
        return next((place for place, cells in first if header(cells)), None), 0
    counts = {place: len({cell for cell in cells if known(cell)}) for place, cells in first}
    sure = [place for place, cells in first if counts[place] > 1 or (counts[place] and _like_names(cells))]
    if sure:
        best = max(sure, key=lambda place: counts[place])
        return best, counts[best]
    usual = Counter(len(cells) for cells in rows if any(cells)).most_common(1)
    place, cells = next(((place, cells) for place, cells in first if len(cells) == usual[0][0]), (0, []))
    below = [_like_names([_name(cell) for cell in row]) for row in rows[place + 1 :] if any(row)]
    return (place if _like_names(cells) and 2 * sum(below) <= len(below) else None), 0


def _name(cell: str) -> str:
    return cell.strip().strip("\ufeff").strip()


def _like_names(cells: list[str]) -> bool:
    names = [cell for cell in cells if cell]
    return 2 * len(names) > len(cells) and len(set(names)) == len(names) and all(map(_NAME.fullmatch, names))


def _columns(cells: list[str]) -> list[str]:
    """Give each column a unique name; those without a name are named by position."""
    names: dict[str, None] = {}
    for place, cell in enumerate(cells, 1):
        name = _name(cell) or f"column {place}"
        while name in names:
            name += f" (column {place})"
        names[name] = None
    return list(names)
