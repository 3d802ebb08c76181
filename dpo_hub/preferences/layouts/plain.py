"""Converts plain text to pairs, column by column, for a plain file whose layout is just three columns."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from ..pairfile import plain_pairs
from ..table import NotPlain, Plain
from .columns import is_known
from .messages import LAST, NOT_PLAIN
from .rows import Item, Layout

if TYPE_CHECKING:
    import pyarrow as pa


def plain_items(file: Plain, layout: Layout, columns: Collection[str]) -> Iterator[Item | pa.RecordBatch]:
    """Yield pairs of plain text unchanged; other rows go through *layout* after `file.mend` has fixed their cells.

    Raises:
        NotPlain: the file is not as plain as it seemed, or it has known columns other than *columns*, from which the
            layout was recognised.
    """
    first = file.first
    for whole in file.columns(layout.plain):
        if any(is_known(name) for name in whole.schema.names if name not in columns):
            raise NotPlain
        batch = whole.select(list(layout.plain))
        texts, special = _split_plain(batch)
        start = 0
        for place in [*special, batch.num_rows]:
            if place > start:
                rows = range(first + start, first + place)
                yield plain_pairs(rows, [text.slice(start, place - start) for text in texts])
            if place < batch.num_rows:
                cells = batch.slice(place, 1).to_pylist()[0]
                row = {name: file.mend(cell) if cell else cell for name, cell in cells.items()}
                if not any((cell or "").strip() for cell in row.values()):
                    raise NotPlain  # a blank line or an empty row; the other columns are not visible here
                yield from layout.read(iter([(first + place, row)]))
            start = place + 1
        first += batch.num_rows


def _split_plain(batch: pa.RecordBatch) -> tuple[list[pa.Array], list[int]]:
    """Return the stripped texts of *batch* by column, and the indices of the rows that are not just plain text."""
    import pyarrow.compute as pc

    texts = [pc.utf8_trim_whitespace(column) for column in batch.columns]
    doubts = [pc.equal(texts[1], texts[2])]
    for text in texts:
        doubts += [
            pc.equal(pc.binary_length(text), 0),
            pc.match_substring_regex(text, NOT_PLAIN),
            pc.ends_with(text, LAST),
        ]
    *_, special = accumulate(doubts, pc.or_)
    return texts, pc.indices_nonzero(pc.fill_null(special, True)).to_pylist()
