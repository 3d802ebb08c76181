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


def read_rows(path: Path) -> list[tuple[int, Row]]:
    """Read every row of *path*: CSV (comma, semicolon, tab or pipe), a JSON array, or JSON Lines, in UTF-8.

    Each comes with its number as people see it: a spreadsheet's row (the header is 1), a place in the array, or a line.
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
    rows = _json_rows(text, path) if text.lstrip()[0] in "[{" else _csv_rows(text, path)
    return [(number, {str(key).strip().lower(): value for key, value in row.items()}) for number, row in rows]


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, Row]]:
    delimiter = max(DELIMITERS, key=text.lstrip().partition("\n")[0].count)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # for the whole process, so never lowered
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        for number, cells in enumerate(reader, 1):
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = cells
                continue
            row: Row = dict(zip(header, cells, strict=False))
            yield number, row | ({EXTRA_CELLS: cells[len(header) :]} if len(cells) > len(header) else {})
    except csv.Error as error:
        raise PreferencesError(
            f"{path} cannot be read as CSV: {error} (at line {reader.line_num}). A quote may be missing or one too "
            "many; mend it, or save the file as CSV again."
        ) from error


def _json_rows(text: str, path: Path) -> Iterator[tuple[int, Row]]:
    rows: Iterator[tuple[int, Any]]
    try:
        whole = json.loads(text)
        rows = iter(enumerate(whole if isinstance(whole, list) else [whole], 1))
    except json.JSONDecodeError as error:
        rows = _json_lines(text, path, error)
    for number, row in rows:
        if not isinstance(row, dict):
            raise PreferencesError(
                f"{path}, row {number}: expected an object with prompt, chosen and rejected, "
                f"found {type(row).__name__}. Wrap each pair in braces."
            )
        yield number, row


def _json_lines(text: str, path: Path, whole: json.JSONDecodeError) -> Iterator[tuple[int, Any]]:
    """Read JSON Lines; where not even the first line is JSON, *whole* says better what is wrong."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                at, told = (whole.lineno, whole.msg) if number == 1 else (number, error.msg)
                raise PreferencesError(
                    f"{path}, line {at}: not valid JSON ({told}). Mend or remove that line."
                ) from error
