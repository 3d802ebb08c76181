"""Column mappings given by the user: `prompt=data.ask,chosen=good,rejected=bad`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import PreferencesError
from ..table import Row, Rows
from .columns import Columns
from .compared import by_verdict
from .grouped import answers_layout
from .paired import pairs_layout
from .rows import Item, Layout, PromptColumns, Read, text_only
from .verdicts import DirectionUnknown, Scale, normal

PARTS = {
    "prompt": "what is asked",
    "chosen": "the better reply",
    "rejected": "the worse reply",
    "system": "a system message",
    "input": "text that goes under the prompt",
    "history": "earlier turns",
    "tools": "tools that the model may call",
    "a": "the first of two answers",
    "b": "the second of two answers",
    "winner": "the verdict between a and b",
    "a_wins": "the verdict that means a",
    "b_wins": "the verdict that means b",
    "answer": "an answer, where there is one a row",
    "rating": "its rating, higher is better",
    "rank": "its rank, lower is better",
    "thumb": "its thumb, up or down",
}
"""The parts that a mapping can name."""

_PLACE = re.compile("-?[0-9]{1,9}")
_VALUES = ("a_wins", "b_wins")
_Wins = tuple[str | None, str | None]
"""The verdicts that mean a and b, if given."""
_ASKING = ("prompt", "system", "input", "history", "tools")


def parse_mapping(written: str) -> dict[str, str]:
    """Parse a mapping such as `prompt=ask,chosen=good` into a dictionary.

    Raises:
        PreferencesError: it does not have this form.
    """
    pairs = [pair.partition("=") for pair in written.split(",") if pair.strip()]
    parts = [part.strip() for part, _, _ in pairs]
    if not pairs or not all(part.strip() and column.strip() for part, _, column in pairs) or len({*parts}) < len(parts):
        raise PreferencesError(
            f"The mapping {written!r} is not of the form prompt=COLUMN,chosen=COLUMN,rejected=COLUMN."
        )
    return {part.strip(): column.strip() for part, _, column in pairs}


def mapped(columns: Columns, sample: Sequence[Row], mapping: Mapping[str, str]) -> Layout:
    """Return the layout that *mapping* describes; parts that it does not mention are found by column name.

    A column may be a path into nested cells, such as `data.prompt` or `answers.0.text`; in a file without a header, it
    is a number.

    Raises:
        PreferencesError: it names an unknown part or a missing column, or it is incomplete.
        DirectionUnknown: it does not determine which of two answers is chosen.
    """
    if unknown := [part for part in mapping if part not in PARTS]:
        raise PreferencesError(f"The mapping names {unknown[0]!r}, which is no part. The parts are {', '.join(PARTS)}.")
    paths = {part: resolve_column(columns, sample, name) for part, name in mapping.items() if part not in _VALUES}
    layout = _mapped_layout(columns, sample, paths, (mapping.get("a_wins"), mapping.get("b_wins")))
    nested = [path for path in paths.values() if path not in columns.actual.values()]
    if nested:
        layout = replace(layout, read=_through(layout.read, nested), plain=())
    return text_only(layout, columns)


def _mapped_layout(columns: Columns, sample: Sequence[Row], paths: Mapping[str, str], wins: _Wins) -> Layout:
    taken = paths.values()
    prompt_columns = PromptColumns.among(columns, taken=taken, prompt=paths.get("prompt"))
    prompt_columns = replace(prompt_columns, **{part: paths[part] for part in _ASKING if part in paths})
    if any(wins) or {"a", "b", "winner"} & paths.keys():
        return _comparison(columns, sample, paths, prompt_columns, wins)
    kind = next((part for part in ("rating", "rank", "thumb") if part in paths), None)
    if kind:
        answer = paths.get("answer") or columns.find("answer", without=taken)
        return answers_layout(prompt_columns, _given(answer, "answer"), kind, paths[kind])
    rejected = paths.get("rejected") or columns.find("rejected", without=taken)
    chosen = paths.get("chosen") or columns.find("chosen", without=[*taken, rejected])
    return pairs_layout(prompt_columns, _given(chosen, "chosen"), _given(rejected, "rejected"))


def _comparison(
    columns: Columns, sample: Sequence[Row], paths: Mapping[str, str], prompt_columns: PromptColumns, wins: _Wins
) -> Layout:
    a_wins, b_wins = wins
    if b_wins and (a_wins is None or normal(a_wins) == normal(b_wins)):
        raise PreferencesError(f"The mapping has b_wins={b_wins}, and needs another value for a. Add a_wins=VALUE.")
    first, second, _ = columns.sides() or (None, None, "")
    first, second = _given(paths.get("a", first), "a"), _given(paths.get("b", second), "b")
    if first == second:
        raise PreferencesError(f"The mapping has {first!r} as both of the answers. Say which columns are a and b.")
    verdict = _given(paths.get("winner") or columns.find("verdict", without=[first, second]), "winner")
    values = [value for row in sample if (value := dig(row, verdict)) not in (first, second)]
    scale = Scale.where(a_wins, values, b_wins) if a_wins else Scale.of(values, _side(first, second))
    if scale is None:
        if a_wins:
            raise DirectionUnknown(
                f"{verdict!r} has several values other than {a_wins!r}, and which of them is for {second!r} is not "
                "known. Check a_wins, and add b_wins=VALUE."
            )
        raise DirectionUnknown(f"{verdict!r} does not say which value stands for {first!r}. Add a_wins=VALUE.")
    return by_verdict(prompt_columns, first, second, verdict, scale)


def _side(first: str, second: str) -> str:
    """Return the mark of the first answer's column, `a` if it has none, or empty if the columns are reversed."""
    one, _, mark = Columns((first, second)).sides() or (first, second, "a")
    return mark if one == first else ""


def _given(column: str | None, part: str) -> str:
    if column is None:
        raise PreferencesError(f"The mapping has to say which column is {part}: {PARTS[part]}. Add {part}=COLUMN.")
    return column


def resolve_column(columns: Columns, sample: Sequence[Row], name: str) -> str:
    """Return the column or path that *name* means, as spelled in the source."""
    actual = columns.spelled(name) or columns.spelled(f"column {name}")
    if actual is None and any(dig(row, name) is not None for row in sample):
        return name
    if actual is None:
        raise PreferencesError(
            f"The mapping names the column {name!r}, which is not there; there are {columns.shown()}."
        )
    return actual


def dig(row: Row, path: str) -> Any:
    """Return the cell at *path*, which is names and indices joined by dots; None if there is none."""
    if path in row:
        return row[path]
    found: Any = row
    for step in path.split("."):
        if isinstance(found, dict):
            found = found.get(step)
        elif isinstance(found, list) and _PLACE.fullmatch(step) and -len(found) <= int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found


def _through(read: Read, paths: Sequence[str]) -> Read:
    """Before reading a row, add the nested cells at *paths* to it, with the paths as column names."""

    def reached(rows: Rows) -> Iterator[Item]:
        dug = ((n, row | {path: dig(row, path) for path in paths} if isinstance(row, dict) else row) for n, row in rows)
        return read(dug)

    return reached
