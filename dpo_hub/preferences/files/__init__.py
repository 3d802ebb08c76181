"""Reads rows from a file or a Hub dataset of any format, encoding and compression. Does not interpret columns."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, Any, cast

from ...errors import PreferencesError, explaining_disk_full
from ..export import unescape_formula
from ..pairs import pluralise
from ..table import Plain, Rows, Table, with_labels
from .delimited import read_delimited
from .dialect import Dialect
from .hub_dataset import open_dataset
from .json_rows import read_json
from .plain import LEAST_BYTES, plain_csv, plain_json
from .text import open_text, stray_bytes

MAX_LINE_BYTES = 64 * 2**20
"""Maximum length of a line of a CSV file; cells have a separate limit."""
MAX_COLUMNS = 1_000
MAX_INFLATION = 100
"""Maximum ratio of unpacked to packed size of a gzip file; for text it is 3 to 30."""
INFLATION_FLOOR = 64 * 2**20
"""Files that unpack to less than this are exempt, because a short repeated text compresses very well."""

BUFFER_BYTES = 2**20
PARQUET_ROWS = 1_000

_SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".gz")
_JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
_JSON_BEGINS = re.compile(rb'\s*(?:\{|\[\s*(?:[\[{"\]]|\Z|(?:null|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*(?:[,\]]|\Z)))')
"""Matches neither `[prompt],[chosen]` nor `[2024-01-01 10:00] export started`."""
_HUB_ID = re.compile(r"(?P<repo>(?a:[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*))(?::(?P<split>[\w./-]+))?")
_OTHER_KINDS = {
    b"PK\x03\x04": "an Excel workbook or a zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF document",
    b"BZh": "a bzip2 archive",
    b"\xfd7zX": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"SQLite": "an SQLite database",
}


def open_table(source: str | Path, *, known: Callable[[str], bool]) -> Table:
    """Open *source*: CSV and its variants, JSON, JSON Lines or Parquet, each also gzipped, or a Hub dataset.

    *known* says whether a name is that of a relevant column, which distinguishes headers from other rows.

    Raises:
        PreferencesError: there is no such file, its type is not supported, or it exceeds a limit. Reading rows may also
            raise it.
    """
    path = Path(source)
    if path.is_file():
        with ExitStack() as stack:
            table = _open_file(path, stack, known)
            return replace(table, opened=stack.pop_all())
    named = parse_hub_id(str(source))
    if named and not path.exists():
        return open_dataset(*named)
    if path.is_dir():
        raise PreferencesError("This is a folder. Name one file in it.")
    raise PreferencesError("There is no such file. Check the name, or give the full path.")


def parse_hub_id(source: str) -> tuple[str, str | None] | None:
    """Return the repository and the split that *source* names, if it looks like a Hub dataset and not like a file."""
    found = _HUB_ID.fullmatch(source)
    return (found["repo"], found["split"]) if found and Path(source).suffix.lower() not in _SUFFIXES else None


def _open_file(path: Path, stack: ExitStack, known: Callable[[str], bool]) -> Table:
    raw: IO[bytes] = stack.enter_context(path.open("rb"))
    packed = cast(io.BufferedReader, raw).peek(2)[:2] == b"\x1f\x8b"
    if packed:
        _require_safe_gzip(path)
        raw = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=raw)))
    watched = _Watched(raw)
    stream = stack.enter_context(io.BufferedReader(watched, BUFFER_BYTES))
    head = stream.peek(2**12)
    begin = head.translate(None, b"\x00\xff\xfe\xef\xbb\xbf")
    if not begin.strip():
        raise PreferencesError("The file is empty. It needs a header row with prompt, chosen and rejected, and pairs.")
    if head.startswith(b"PAR1"):
        return _parquet(_spooled(stream, stack) if packed else raw)
    if head.startswith(b"\x1f\x8b"):
        raise PreferencesError("It is packed twice, gzip inside gzip. Unpack it once, and try again.")
    for magic, kind in _OTHER_KINDS.items():
        if head.startswith(magic):
            raise PreferencesError(f"This is {kind}. Save it as CSV, JSON Lines or Parquet, and try again.")
    is_json = _is_json(path, begin)
    watched.by_line = not is_json
    text, encoding = open_text(stream)
    large = path if encoding.startswith("UTF-8") and not packed and path.stat().st_size >= LEAST_BYTES else None
    return _json(text, encoding, known, large) if is_json else _csv(text, encoding, known, large)


def _is_json(path: Path, begin: bytes) -> bool:
    """Whether a file that starts with *begin* is JSON; the file name decides if it can."""
    suffixes = {suffix.lower() for suffix in path.suffixes}
    named = Path(path.name.lower().removesuffix(".gz")).suffix in _JSON_SUFFIXES
    return named or (bool(_JSON_BEGINS.match(begin)) and not {".csv", ".tsv"} & suffixes)


def _csv(text: io.TextIOWrapper, encoding: str, known: Callable[[str], bool], large: Path | None) -> Table:
    read = read_delimited(text, known=known)
    if len(read.columns) > MAX_COLUMNS:
        raise PreferencesError(
            f"It has {len(read.columns):,} columns, and {MAX_COLUMNS:,} is the limit. Keep those with the prompt, the "
            "replies and what goes with them."
        )
    notes = [f"CSV with {read.dialect.description}, {encoding}"]
    if read.skipped:
        notes.append(f"{pluralise(len(read.skipped), 'row')} before the header passed over")
    plain = None
    if large and read.header_row == 1 and read.dialect == Dialect(read.dialect.delimiter):
        plain = Plain(partial(plain_csv, large, read.columns, read.dialect.delimiter), 2, unescape_formula)
    return Table(_noting_strays(_unguarded(read.rows), text, notes), read.columns, plain, notes)


def _unguarded(rows: Rows) -> Rows:
    """Remove the apostrophe that keeps a spreadsheet from running a cell as a formula."""
    for number, row in rows:
        if type(row) is dict:
            for name, cell in row.items():
                if cell[:1] == "'":
                    row[name] = unescape_formula(cell)
        yield number, row


def _json(text: io.TextIOWrapper, encoding: str, known: Callable[[str], bool], large: Path | None) -> Table:
    notes = [f"JSON, {encoding}"]
    plain = Plain(partial(plain_json, large)) if large else None
    return Table(_noting_strays(read_json(text, known=known), text, notes), plain=plain, notes=notes)


def _noting_strays(rows: Rows, text: io.TextIOWrapper, notes: list[str]) -> Rows:
    yield from rows
    if strays := stray_bytes(text):
        notes.append(f"{pluralise(strays, 'byte')} read as Windows-1252, because UTF-8 has no such bytes")


def _spooled(stream: io.BufferedReader[Any], stack: ExitStack) -> IO[bytes]:
    """Write the unpacked bytes to a temporary file, because Parquet is read from its end."""
    with explaining_disk_full(tempfile.gettempdir()):
        file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
        shutil.copyfileobj(stream, file, BUFFER_BYTES)
    return file


def _parquet(file: IO[bytes]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def rows() -> Rows:
        numbers = count(1)
        try:
            for batch in opened.iter_batches(PARQUET_ROWS):
                yield from zip(numbers, batch.to_pylist(), strict=False)
        except damage as error:
            raise _damaged(error) from error

    damage = (pa.ArrowException, OSError, ValueError, OverflowError, LookupError)  # LookupError is for a time zone
    try:
        opened = pq.ParquetFile(file)
        names, metadata = opened.schema_arrow.names, opened.schema_arrow.metadata or {}
    except damage as error:
        raise _damaged(error) from error
    if len(names) > MAX_COLUMNS:
        raise PreferencesError(f"It has {len(names):,} columns, and {MAX_COLUMNS:,} is the limit. Keep those needed.")
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise PreferencesError(f"It has more than one column named {twice[0]!r}. Rename or drop all but one.")
    return Table(with_labels(rows(), _labels(metadata)), names, notes=["Parquet"])


def _damaged(error: Exception) -> PreferencesError:
    told = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return PreferencesError(f"The Parquet file is damaged ({told}). Write it again.")


def _labels(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Return the class names by column, if `datasets` wrote the file."""
    try:
        written = json.loads(metadata.get(b"huggingface", b"{}"))
    except (ValueError, RecursionError):
        return {}
    features = _get_key(_get_key(written, "info"), "features")
    names = {column: _get_key(kind, "names") for column, kind in features.items()} if isinstance(features, dict) else {}
    return {column: kinds for column, kinds in names.items() if isinstance(kinds, list)}


def _get_key(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _require_safe_gzip(path: Path) -> None:
    """Unpack a gzip file and discard the output, which is fast compared with reading its rows.

    Raises:
        PreferencesError: it is damaged, or its unpacked size is too large.
    """
    unpacked = 0
    try:
        with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as file:
            while block := file.read(BUFFER_BYTES):
                unpacked += len(block)
                if unpacked > INFLATION_FLOOR and unpacked > MAX_INFLATION * packed.tell():
                    raise PreferencesError(
                        f"The gzip file unpacks to more than {MAX_INFLATION} times its size, as no file of preferences "
                        "does. If it is one, unpack it first."
                    )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PreferencesError(f"The gzip file is damaged or cut off ({error}). Copy or pack it again.") from error


class _Watched(io.RawIOBase):
    """The bytes of a file. With *by_line*, reading fails if a line exceeds the limit."""

    by_line = False

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._line = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill *buffer*.

        Raises:
            PreferencesError: a line is too long.
        """
        data = self._source.read(len(buffer))
        if self.by_line:
            end = max(data.rfind(b"\n"), data.rfind(b"\r"))
            self._line = len(data) - end - 1 if end >= 0 else self._line + len(data)
            if self._line > MAX_LINE_BYTES:
                raise PreferencesError(
                    f"It has a line of more than {MAX_LINE_BYTES // 2**20} MB, the limit for one line, so it is no "
                    "table. Save it as CSV or JSON Lines with one pair a row."
                )
        buffer[: len(data)] = data
        return len(data)
