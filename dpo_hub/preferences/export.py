"""Pairs to CSV, JSON Lines or Parquet for people and other tools; `read_preferences` gives the same pairs back."""

from __future__ import annotations

import csv
import io
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from ..errors import PreferencesError, telling_disk_full
from .layouts.messages import is_plain
from .pairfile import PARTS
from .pairs import Messages, PreferencePair, rows_named

PARQUET_ROWS = 2_000
FURTHER = ("tools", "chat_template_kwargs")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", re.IGNORECASE)
_GUARDED = re.compile(r"'+[=+\-@\t\r]")


def guarded(cell: str) -> str:
    """*cell* with an apostrophe before it where a spreadsheet would run it as a formula."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """*cell* without the apostrophe that `guarded` put before it."""
    return cell[1:] if _GUARDED.match(cell) else cell


def write_preferences(pairs: Sequence[PreferencePair], path: Path) -> None:
    """Write *pairs* to *path*, which ends in `.csv`, `.jsonl` or `.parquet`; what was there is replaced in one step.

    JSON Lines and Parquet are in TRL's conversational form. In CSV a part is its text where that says all, else JSON
    messages, and cells that a spreadsheet would run are guarded.

    Raises:
        PreferencesError: the name ends otherwise, there is no such folder, or Parquet cannot hold the pairs.
        DiskFullError: there is no room.
    """
    write = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}.get(path.suffix.lower())
    if write is None:
        raise PreferencesError(
            f"{path}: pairs are written as CSV, JSON Lines or Parquet. Use .csv, .jsonl or .parquet."
        )
    with replacing(path) as file:
        write(pairs, file)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to write that becomes *path* once all is written, and is gone if anything fails.

    Raises:
        PreferencesError: there is no such folder.
        DiskFullError: there is no room.
    """
    require_folder(path)
    aside = path.with_name(f".{secrets.token_hex(4)}.{path.name}"[:200])
    try:
        with telling_disk_full(path.parent), aside.open("xb") as file:
            yield file
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def require_folder(path: Path) -> None:
    """See that there is a folder to write *path* to.

    Raises:
        PreferencesError: there is none.
    """
    if not path.parent.is_dir():
        raise PreferencesError(f"There is no folder {path.parent} to write {path.name} to. Make it, or name another.")


def write_csv(rows: Iterable[Iterable[str]], file: IO[bytes]) -> None:
    """Write *rows* as CSV: in UTF-8 with a byte order mark, without which Excel garbles é, and formulas guarded.

    A number is no formula.
    """
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="", write_through=True) as text:
        csv.writer(text).writerows([cell if _NUMBER.fullmatch(cell) else guarded(cell) for cell in row] for row in rows)


def _write_csv(pairs: Sequence[PreferencePair], file: IO[bytes]) -> None:
    further = [name for name in FURTHER if any(getattr(pair, name) for pair in pairs)]
    cells = (
        [
            *(_cell(getattr(pair, part), role) for part, role in PARTS.items()),
            *(_object(pair, name) for name in further),
        ]
        for pair in pairs
    )
    write_csv(chain([[*PARTS, *further]], cells), file)


def _cell(messages: Messages, role: str) -> str:
    """*messages* as text, or as JSON where the reader would not make the same messages of the text."""
    text = str(messages[0].get("content")) if messages else ""
    plain = list(messages) == [{"role": role, "content": text}] and text == text.strip() != ""
    return text if plain and is_plain(text) else _json(list(messages))


def _object(pair: PreferencePair, name: str) -> str:
    value = getattr(pair, name)
    return _json(value) if value else ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _write_jsonl(pairs: Sequence[PreferencePair], file: IO[bytes]) -> None:
    for pair in pairs:
        file.write(_json(pair.messages).encode() + b"\n")


def _write_parquet(pairs: Sequence[PreferencePair], file: IO[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    messages = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    tools = {"tools": pa.string()} if any(pair.tools for pair in pairs) else {}
    schema = pa.schema({**dict.fromkeys(PARTS, messages), **tools})
    rows = map(_parquet_row, pairs)
    with pq.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rows, PARQUET_ROWS)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))


def _parquet_row(pair: PreferencePair) -> dict[str, Any]:
    """The row as TRL takes it.

    Raises:
        PreferencesError: it has objects of changing keys, of which Arrow would give each row all.
    """
    parts = {part: getattr(pair, part) for part in PARTS}
    if pair.chat_template_kwargs or any(len(message) > 2 for messages in parts.values() for message in messages):
        raise PreferencesError(
            f"Parquet cannot hold tool calls or chat_template_kwargs as they are ({rows_named([pair.row])}). "
            "End the name in .jsonl."
        )
    return parts | ({"tools": _json(list(pair.tools))} if pair.tools else {})
