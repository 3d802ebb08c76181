"""Which column is which in a preference file: the available columns, what was detected, and what the user chose."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain, islice

from ...errors import DPOHubError
from ...preferences import Preferences
from ...preferences.files import open_table
from ...preferences.layouts.columns import is_known, simple
from ...preferences.layouts.mapping import PARTS, parse_mapping
from ...preferences.table import Row
from .files import Source, key_of

MAIN_PARTS = ("prompt", "chosen", "rejected")
"""The parts of a mapping that have an input of their own; others are written as text."""
_ROWS = 50
_NAME = re.compile(r"[^.!?]{1,40}")
"""Text that may be a column's name, and is not a sentence."""


def columns_of(source: Source) -> list[str]:
    """The columns to choose from, as the file spells them; none if it cannot be opened."""
    return list(_columns(*key_of(source)))


@lru_cache(4)
def _columns(_name: str, where: str, _stamp: tuple[int, ...], mapping: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    named = {simple(column) for _, column in mapping}
    try:
        with open_table(where, known=lambda name: is_known(name) or simple(name) in named) as table:
            rows = [row for _, row in islice(table.rows, _ROWS) if isinstance(row, dict)]
            return _header(table.columns, rows) or tuple(dict.fromkeys(chain.from_iterable(rows)))
    except DPOHubError:
        return ()  # `read` reports why it cannot be read


def _header(columns: Sequence[str], rows: Sequence[Row]) -> tuple[str, ...]:
    """The names of the *columns*; if none is known, the first row may be a header with names of its own."""
    first = [str(cell) for cell in rows[0].values()] if rows and columns[:1] == ["column 1"] else []
    is_header = len({*first}) == len(first) and all(map(_NAME.fullmatch, first))
    return tuple(first if first and is_header else columns)


def mapping_shown(source: Source, preferences: Preferences | None) -> tuple[list[str | None], str]:
    """Which column is which, as chosen or else as detected: the columns of the main parts, and the others as text.

    Detected columns are shown only if they can be shown completely, because half a mapping would mean something else.
    """
    known = dict(source.mapping) or _found(preferences.columns if preferences else {}, columns_of(source))
    others = ",".join(f"{part}={column}" for part, column in known.items() if part not in MAIN_PARTS)
    return [known.get(part) for part in MAIN_PARTS], others


def _found(parts: Mapping[str, str], there: Sequence[str]) -> dict[str, str]:
    """The detected *parts* as a mapping, or an empty one if that cannot express them."""
    first, _, second = parts.get("answers", "").partition(", ")
    answers = {"a": first, "b": second} if second else {}
    found = {part: column for part, column in parts.items() if part != "answers"} | answers
    plain = all(part in PARTS and column in there and "," not in column for part, column in found.items())
    return found if plain else {}


def mapping_of(columns: Sequence[str | None], others: str) -> dict[str, str]:
    """The mapping from the chosen *columns* of the main parts, and from *others*, written as text.

    Raises:
        PreferencesError: *others* is not written correctly.
    """
    named = ((part, (column or "").strip()) for part, column in zip(MAIN_PARTS, columns, strict=True))
    return {part: column for part, column in named if column} | (parse_mapping(others) if others.strip() else {})
