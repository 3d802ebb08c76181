"""Writes pairs to CSV, JSON Lines or Parquet for people and other tools; `read_preferences` restores the same pairs."""

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

from ..errors import PreferencesError, explaining_disk_full
from .layouts.messages import is_plain
from .pairfile import PART_ROLES
from .pairs import Messages, PreferencePair, format_rows

PARQUET_ROWS = 2_000
FURTHER = ("tools", "chat_template_kwargs")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", re.IGNORECASE)
_GUARDED = re.compile(r"'+[=+\-@\t\r]")


def escape_formula(cell: str) -> str:
    """Prefix *cell* with an apostrophe if a spreadsheet would run it as a formula."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unescape_formula(cell: str) -> str:
    """Remove the apostrophe that `escape_formula` added to *cell*."""
    return cell[1:] if _GUARDED.match(cell) else cell


def write_preferences(pairs: Sequence[PreferencePair], path: Path) -> None:
    """Write *pairs* to *path*, which ends in `.csv`, `.jsonl` or `.parquet`; an existing file is replaced atomically.

    JSON Lines and Parquet use TRL's conversational format. In CSV, a part is plain text if that loses nothing,
    otherwise JSON messages, and cells that a spreadsheet would run are guarded.

    Raises:
        PreferencesError: the name has another ending, the folder does not exist, or Parquet cannot hold the pairs.
        DiskFullError: the disk is full.
    """
    write = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}.get(path.suffix.lower())
    if write is None:
        raise PreferencesError(
            f"{path}: pairs are written as CSV, JSON Lines or Parquet. Use .csv, .jsonl or .parquet."
        )
    with atomic_write(path) as file:
        write(pairs, file)


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that becomes *path* once everything is written, and is removed if anything fails.

    Raises:
        PreferencesError: the folder does not exist.
        DiskFullError: the disk is full.
    """
    require_folder(path)
    aside = path.with_name(f".{secrets.token_hex(4)}.{path.name}"[:200])
    try:
        with explaining_disk_full(path.parent), aside.open("xb") as file:
            yield file
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def require_folder(path: Path) -> None:
    """Check that the folder of *path* exists.

    Raises:
        PreferencesError: it does not exist.
    """
    if not path.parent.is_dir():
        raise PreferencesError(f"There is no folder {path.parent} to write {path.name} to. Make it, or name another.")


def write_csv(rows: Iterable[Iterable[str]], file: IO[bytes]) -> None:
    """Write *rows* as CSV in UTF-8, with a byte order mark (without it, Excel garbles é) and with formulas guarded.

    A number is not a formula.
    """
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="", write_through=True) as text:
        csv.writer(text).writerows(
            [cell if _NUMBER.fullmatch(cell) else escape_formula(cell) for cell in row] for row in rows
        )


def _write_csv(pairs: Sequence[PreferencePair], file: IO[bytes]) -> None:
    further = [name for name in FURTHER if any(getattr(pair, name) for pair in pairs)]
    cells = (
        [
            *(_cell(getattr(pair, part), role) for part, role in PART_ROLES.items()),
            *(_object(pair, name) for name in further),
        ]
        for pair in pairs
    )
    write_csv(chain([[*PART_ROLES, *further]], cells), file)


def _cell(messages: Messages, role: str) -> str:
    """Return *messages* as text, or as JSON if the reader would not turn the text into the same messages."""
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
    schema = pa.schema({**dict.fromkeys(PART_ROLES, messages), **tools})
    rows = map(_parquet_row, pairs)
    with pq.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rows, PARQUET_ROWS)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))


def _parquet_row(pair: PreferencePair) -> dict[str, Any]:
    """Return the row in TRL's format.

    Raises:
        PreferencesError: it has objects with varying keys; Arrow would give each row all of the keys.
    """
    parts = {part: getattr(pair, part) for part in PART_ROLES}
    if pair.chat_template_kwargs or any(len(message) > 2 for messages in parts.values() for message in messages):
        raise PreferencesError(
            f"Parquet cannot hold tool calls or chat_template_kwargs as they are ({format_rows([pair.row])}). "
            "End the name in .jsonl."
        )
    return parts | ({"tools": _json(list(pair.tools))} if pair.tools else {})
