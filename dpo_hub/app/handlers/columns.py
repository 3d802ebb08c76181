"""Which column is which in a preference file: what there is to choose from, what was found, and what people say."""

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
"""The parts of a mapping that have a box of their own; others are written out."""
_ROWS = 50
_NAME = re.compile(r"[^.!?]{1,40}")
"""What may be a column's name, and is no sentence."""


def columns_of(source: Source) -> list[str]:
    """The columns to choose from, as the file spells them; none where it cannot be opened."""
    return list(_columns(*key_of(source)))


@lru_cache(4)
def _columns(_name: str, where: str, _stamp: tuple[int, ...], mapping: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    named = {simple(column) for _, column in mapping}
    try:
        with open_table(where, known=lambda name: is_known(name) or simple(name) in named) as table:
            rows = [row for _, row in islice(table.rows, _ROWS) if isinstance(row, dict)]
            return _header(table.columns, rows) or tuple(dict.fromkeys(chain.from_iterable(rows)))
    except DPOHubError:
        return ()  # why it cannot be read is what `read` says


def _header(columns: Sequence[str], rows: Sequence[Row]) -> tuple[str, ...]:
    """The names of the *columns*; where none is known, the first row may be a header in words of its own."""
    first = [str(cell) for cell in rows[0].values()] if rows and columns[:1] == ["column 1"] else []
    is_header = len({*first}) == len(first) and all(map(_NAME.fullmatch, first))
    return tuple(first if first and is_header else columns)


def mapping_shown(source: Source, preferences: Preferences | None) -> tuple[list[str | None], str]:
    """Which column is which: what was said, else what was found; the main parts, and others written out.

    What was found is shown where all of it can be said so, for half a mapping would mean something else.
    """
    known = dict(source.mapping) or _found(preferences.columns if preferences else {}, columns_of(source))
    others = ",".join(f"{part}={column}" for part, column in known.items() if part not in MAIN_PARTS)
    return [known.get(part) for part in MAIN_PARTS], others


def _found(parts: Mapping[str, str], there: Sequence[str]) -> dict[str, str]:
    """The mapping that says what the reader found in the *parts* by itself, or none."""
    first, _, second = parts.get("answers", "").partition(", ")
    answers = {"a": first, "b": second} if second else {}
    found = {part: column for part, column in parts.items() if part != "answers"} | answers
    plain = all(part in PARTS and column in there and "," not in column for part, column in found.items())
    return found if plain else {}


def mapping_of(columns: Sequence[str | None], others: str) -> dict[str, str]:
    """The mapping that is meant by the *columns* of the main parts, and what is written of others.

    Raises:
        PreferencesError: it is not written as it has to be.
    """
    named = ((part, (column or "").strip()) for part, column in zip(MAIN_PARTS, columns, strict=True))
    return {part: column for part, column in named if column} | (parse_mapping(others) if others.strip() else {})
