"""The entry point: reads preferences from a source, and reports how it was read and what was left out."""

from __future__ import annotations

import tempfile
import weakref
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain, count, islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import PreferencesError, explaining_disk_full
from .files import open_table
from .layouts import recognise
from .layouts.columns import Columns, is_known, simple
from .layouts.mapping import mapped
from .layouts.messages import IMAGE
from .layouts.plain import plain_items
from .layouts.rows import EMPTY, MEDIA, Item, Layout, LeftOut
from .layouts.verdicts import DirectionUnknown
from .pairfile import Draft, PairFile, write_pairs
from .pairs import SHOWN_REASONS, Preferences, format_rows, pluralise
from .table import NotPlain, Row, Rows, Table, Unreadable

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE_ROWS = 200
"""Number of first rows from which the layout is recognised."""
MAX_REASONS = 50
"""Maximum number of reasons; a reason may quote a value, and thousands of them would not improve a report."""


def read_preferences(source: str | Path, *, mapping: Mapping[str, str] | None = None) -> Preferences:
    """Read preference pairs from a file or a Hub dataset (`owner/name`, `owner/name:split`) in any known layout.

    docs/formats.md lists the layouts and file types. *mapping* says which column is which if the names do not, or are
    wrong: `{"prompt": "data.ask", "chosen": "b", "rejected": "a"}` (`mapping.PARTS` lists all parts). Pairs are written
    in batches to a temporary Parquet file, which exists as long as the result does. Rows without a usable pair are left
    out and counted by reason.

    Raises:
        PreferencesError: the source cannot be read, its layout or direction is unknown, or it has no pairs.
    """
    late: set[str] = set()
    with prefixing_errors(source):
        while True:
            try:
                return _read(source, mapping or {}, late)
            except _LateColumns as found:
                late |= found.names


class _LateColumns(Exception):  # noqa: N818  # reading restarts with these columns
    """A row has columns that the first rows lack, and that may change the meaning of all rows."""

    def __init__(self, names: set[str]) -> None:
        super().__init__()
        self.names = names


def _read(source: str | Path, mapping: Mapping[str, str], late: Iterable[str]) -> Preferences:
    named = {simple(column) for column in mapping.values()}
    with open_table(source, known=lambda name: is_known(name) or simple(name) in named) as table:
        sample = list(islice(table.rows, SAMPLE_ROWS))
        names = table.columns or list(dict.fromkeys([*chain.from_iterable(_readable(sample)), *late]))
        layout = _layout(names, sample, mapping)
        rows = chain(sample, table.rows)
        watched = rows if table.columns else _watched(rows, set(names))
        pairs, left_out, total = _read_fast(table, layout, names) or _read_carefully(watched, layout)
        if not pairs:
            raise PreferencesError(_no_pair(layout, left_out, total))
        name = Path(source).name if Path(source).is_file() else str(source)
        return Preferences(name, layout.name, pairs, left_out, layout.columns, table.notes, total)


_Found = tuple[PairFile, dict[str, list[int]], int]
"""The pairs, the rows left out by reason, and how many rows there were."""


def _read_fast(table: Table, layout: Layout, names: Collection[str]) -> _Found | None:
    if not (table.plain and layout.plain):
        return None
    try:
        pairs, left_out = _stored(plain_items(table.plain, layout, names))
    except NotPlain:
        return None
    return pairs, left_out, len(pairs) + sum(map(len, left_out.values()))


def _read_carefully(rows: Rows, layout: Layout) -> _Found:
    passed = count()
    pairs, left_out = _stored(layout.read(map(itemgetter(0), zip(rows, passed, strict=False))))
    return pairs, left_out, next(passed)


def _stored(items: Iterable[Item | pa.RecordBatch]) -> tuple[PairFile, dict[str, list[int]]]:
    """Write the pairs in *items* to a temporary file that lives as long as they do, and collect the rest by reason."""
    left_out: dict[str, list[int]] = defaultdict(list)

    def kept() -> Iterator[Draft | pa.RecordBatch]:
        for item in items:
            if isinstance(item, LeftOut):
                known = item.reason in left_out or len(left_out) < MAX_REASONS
                left_out[item.reason if known else "other reasons"].append(item.row)
            else:
                yield item

    with ExitStack() as stack, explaining_disk_full(tempfile.gettempdir()):
        file = stack.enter_context(tempfile.TemporaryFile())  # the stack or the finaliser closes it
        write_pairs(kept(), file, compression="none")
        pairs = PairFile(file)
        weakref.finalize(pairs, stack.pop_all().close)
    return pairs, dict(left_out)


def _readable(sample: Iterable[tuple[int, Row | Unreadable]]) -> list[Row]:
    return [row for _, row in sample if isinstance(row, dict)]


def _watched(rows: Rows, names: set[str]) -> Rows:
    """Watch for columns other than *names*, because an exporter may omit empty cells."""
    for numbered in rows:
        row = numbered[1]
        if isinstance(row, dict) and not row.keys() <= names:
            new = row.keys() - names
            names |= new
            if late := set(filter(is_known, new)):
                raise _LateColumns(late)
        yield numbered


def _layout(names: Iterable[str], sample: list[tuple[int, Row | Unreadable]], mapping: Mapping[str, str]) -> Layout:
    rows = _readable(sample)
    if not any(rows):
        why = next((f": row {number} is {row}" for number, row in sample if isinstance(row, Unreadable)), "")
        raise PreferencesError(f"It has no row that can be read{why}. It needs rows with prompt, chosen and rejected.")
    columns = Columns(names)
    media = columns.named(*MEDIA)
    if media and all(row.get(media) not in (None, "", "[]", []) for row in rows):
        raise PreferencesError(f"Its column {media!r} holds {IMAGE}. Leave that column out if the text stands alone.")
    layout = mapped(columns, rows, mapping) if mapping else recognise(columns, rows)
    if layout is None:
        raise PreferencesError(_not_recognised(columns, rows))
    return layout


def _not_recognised(columns: Columns, sample: list[Row]) -> str:
    """Explain what is missing, and how to specify the columns."""
    names = list(columns.actual.values())
    if names[0] == "column 1":
        cells = ", ".join(repr(str(cell)[:20]) for cell in list(sample[0].values())[:3])
        return (
            f"It has no header that says which column is which; its first row begins {cells}. "
            "Add the header prompt,chosen,rejected, or give the columns' numbers: --map prompt=1,chosen=2,rejected=3"
        )
    parts = ("prompt", "chosen", "rejected")
    missing = [part for part in parts if columns.find(part) is None]
    absent = f": none is called {' or '.join(missing)}, or another name for it" if missing else ""
    example = ",".join(f"{part}={columns.find(part) or 'COLUMN'}" for part in parts)
    return f"Its columns, {columns.shown()}, fit no layout that is known{absent}. Say which is which: --map {example}"


def _no_pair(layout: Layout, left_out: Mapping[str, list[int]], rows: int) -> str:
    reported = {reason: numbers for reason, numbers in left_out.items() if reason != EMPTY} or left_out
    reasons = "; ".join(
        f"{reason} ({format_rows(numbers)})" for reason, numbers in list(reported.items())[:SHOWN_REASONS]
    )
    return f"Read as {layout.name}, none of {pluralise(rows, 'row')} gives a pair: {reasons}. Look at these rows."


@contextmanager
def prefixing_errors(source: str | Path) -> Iterator[None]:
    """Prefix each error message with the source's name."""
    try:
        yield
    except DirectionUnknown as question:
        raise PreferencesError(f"{source}: {question}") from None
    except PreferencesError as error:
        raise PreferencesError(f"{source}: {error}") from error.__cause__
