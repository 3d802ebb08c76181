"""Reads large plain files with Arrow's parsers, several times as fast as the careful readers.

The whole file is checked for being plain: quotes as in RFC 4180, rows of one width, UTF-8, text in the requested
columns, and one object per line in JSON Lines. If it is not plain, `NotPlain` is raised, and the careful readers start
from the beginning. Both give the same result, except for rows that only the careful JSON reader rejects because of
fields that were not requested: Arrow may accept numbers of any length there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..table import NotPlain

if TYPE_CHECKING:
    import pyarrow as pa

LEAST_BYTES = 2**22
"""Smaller files are fast to read anyway."""
BLOCK_BYTES = 2**22
"""Maximum length of a row of a plain file."""

Batches = Iterator["pa.RecordBatch"]


def plain_csv(path: Path, columns: list[str], delimiter: str, names: Sequence[str]) -> Batches:
    """Yield the columns *names* of a CSV file whose first row is the header, block by block.

    Raises:
        NotPlain: a row has more or fewer cells than *columns*, or a quote is out of place.
    """
    import pyarrow as pa
    from pyarrow import csv

    read = csv.ReadOptions(block_size=BLOCK_BYTES, column_names=columns)
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False)
    types = dict.fromkeys(names, pa.string())
    convert = csv.ConvertOptions(column_types=types, include_columns=list(names), strings_can_be_null=False)
    with _arrow():
        checked = _quotes_checked(path, delimiter.encode())
        for place, batch in enumerate(csv.open_csv(path, read, parse, convert)):
            yield batch if place else batch.slice(1)
            next(checked, None)  # while Arrow reads ahead
        for _ in checked:
            pass


def plain_json(path: Path, names: Sequence[str]) -> Batches:
    """Yield the fields *names* of a JSON Lines file, and any other fields of its first block, block by block.

    Raises:
        NotPlain: a line is not exactly one object, a field of *names* is neither text nor null, or a later block has
            other fields.
    """
    import pyarrow as pa
    from pyarrow import json

    schema = pa.schema(dict.fromkeys(names, pa.string()))
    parse = json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="infer")
    rows, checked = 0, _lines_checked(path)
    with _arrow():
        for batch in json.open_json(path, json.ReadOptions(block_size=BLOCK_BYTES), parse):
            rows += batch.num_rows
            yield batch
            rows -= next(checked, 0)  # while Arrow reads ahead
    if rows != sum(checked):  # a line is blank, or holds two objects
        raise NotPlain


def _lines_checked(path: Path) -> Iterator[int]:
    """Count the lines, block by block; each must begin and end like an object.

    Raises:
        NotPlain: a block does not begin or end like an object. Other lines that do not are merely not counted.
    """
    with path.open("rb") as raw:
        while block := raw.read(BLOCK_BYTES) + raw.readline(BLOCK_BYTES):
            if not block.startswith(b"{") or not block.endswith((b"}", b"}\n", b"}\r\n")):
                raise NotPlain
            yield 1 + (block.count(b"}\n{") or block.count(b"}\r\n{"))


@contextmanager
def _arrow() -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except pa.ArrowException as error:
        raise NotPlain from error


def _quotes_checked(path: Path, delimiter: bytes) -> Iterator[None]:
    """Check, block by block, that quotes enclose whole cells and are doubled within them.

    CSV parsers disagree on what other quotes mean.

    Raises:
        NotPlain: a quote is used in another way.
    """
    ends = delimiter + b"\r\n"
    outside, rest = True, b"\n"
    for block in _blocks(path):
        *closed, rest = (rest + block).split(b'"')
        between = set(closed[not outside :: 2])
        if not all(text == b"" or (text[0] in ends and text[-1] in ends) for text in between):
            raise NotPlain
        outside ^= len(closed) % 2 == 1
        rest = rest[:1] + rest[-1:] if len(rest) > 2 else rest
        yield
    if not outside or (rest and rest[0] not in ends):
        raise NotPlain


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as raw:
        yield from iter(lambda: raw.read(BLOCK_BYTES), b"")
