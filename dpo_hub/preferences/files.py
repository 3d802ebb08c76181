"""Bytes to rows: a CSV or JSON file as dictionaries, one a row. Knows nothing of what the columns mean."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import PreferencesError

Row = dict[str, Any]
DELIMITERS = ",;\t|"
EXTRA_CELLS = "cells beyond the header"
"""The key of what a CSV row has more than the header: a delimiter that was not quoted moved its cells."""


def read_rows(path: Path) -> list[Row]:
    """Read every row of *path*: CSV (comma, semicolon, tab or pipe), a JSON array, or JSON Lines, in UTF-8.

    Column names are trimmed and lower-cased.

    Raises:
        PreferencesError: there is no such file, it is empty, or it cannot be parsed.
    """
    if not path.is_file():
        raise PreferencesError(f"There is no file {path}. Check the name, or give the full path.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PreferencesError(
            f"{path} is not UTF-8 text (byte {error.start}). Save it as CSV UTF-8, or as JSON, and try again."
        ) from error
    if not text.strip():
        raise PreferencesError(f"{path} is empty. It needs a header row with prompt, chosen and rejected, and pairs.")
    rows = _json_rows(text, path) if text.lstrip()[0] in "[{" else list(_csv_rows(text, path))
    return [{str(key).strip().lower(): value for key, value in row.items()} for row in rows]


def _csv_rows(text: str, path: Path) -> Iterator[Row]:
    header = text.lstrip().partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    csv.field_size_limit(2**31 - 1)
    try:
        yield from csv.DictReader(
            io.StringIO(text.lstrip(), newline=""), delimiter=delimiter, restkey=EXTRA_CELLS, restval=""
        )
    except csv.Error as error:
        raise PreferencesError(f"{path} cannot be read as CSV: {error}. Open it and save it as CSV again.") from error


def _json_rows(text: str, path: Path) -> list[Row]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as whole:
        rows = [
            _json_line(line, number, path, whole) for number, line in enumerate(text.split("\n"), 1) if line.strip()
        ]
    rows = rows if isinstance(rows, list) else [rows]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise PreferencesError(
                f"{path}, row {number}: expected an object with prompt, chosen and rejected, "
                f"found {type(row).__name__}. Wrap each pair in braces."
            )
    return rows


def _json_line(line: str, number: int, path: Path, whole: json.JSONDecodeError) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        first, told = (whole.lineno, whole.msg) if number == 1 else (number, error.msg)
        raise PreferencesError(f"{path}, line {first}: not valid JSON ({told}). Mend or remove that line.") from error
