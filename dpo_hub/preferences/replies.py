"""Files of prompts and replies: read row by row with all their columns, and written with additional columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from ..errors import PreferencesError
from .export import PARQUET_ROWS, atomic_write, require_folder, write_csv
from .files import open_table
from .layouts.columns import Columns, is_known, simple
from .layouts.drafts import reply_to
from .layouts.mapping import dig, resolve_column
from .layouts.messages import Unusable, part_of
from .layouts.rows import EMPTY, PromptColumns, is_empty, usable
from .pairs import Messages
from .read import SAMPLE_ROWS, prefixing_errors
from .table import Row, Rows, Unreadable

PARTS = ("prompt", "reply", "system", "input", "history", "tools")
"""The parts that a mapping can name."""
WHOLE_CHATS = ("messages", "conversations")
"""Columns that hold prompt and reply together."""


@dataclass(frozen=True)
class Question:
    """A prompt and the replies to it; `tools` and `chat_template_kwargs` are for the chat template."""

    prompt: Messages
    replies: Sequence[Messages]
    tools: Sequence[Any] = ()
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> bytes:
        """A digest that is equal for the same prompt; short, because there may be many."""
        return blake2b(json.dumps([*self.prompt], sort_keys=True).encode(), digest_size=12).digest()


@dataclass(frozen=True)
class ReplyFile:
    """The columns of prompts and replies in a source, which is read from its beginning each time."""

    source: str | Path
    prompt_columns: PromptColumns
    replies: tuple[str, ...]
    """The reply columns."""
    known: frozenset[str] = frozenset()
    """Column names, in addition to the usual ones, by which a header is recognised."""

    @classmethod
    def open(cls, source: str | Path, mapping: Mapping[str, Sequence[str]] | None = None) -> ReplyFile:
        """Find the columns by their names, or by *mapping*: `{"prompt": ["ask"], "reply": ["a"]}`.

        Raises:
            PreferencesError: the source cannot be read, or the columns cannot be identified.
        """
        mapping = mapping or {}
        if unknown := [part for part in mapping if part not in PARTS]:
            raise PreferencesError(f"The mapping names {unknown[0]!r}; the parts are {', '.join(PARTS)}.")
        file = cls(source, PromptColumns(), (), frozenset(map(simple, chain.from_iterable(mapping.values()))))
        with prefixing_errors(source):
            sample = [row for _, row in islice(file.rows(), SAMPLE_ROWS) if isinstance(row, dict)]
            if not any(sample):
                raise PreferencesError("It has no row that can be read. It needs rows with a prompt and a reply.")
            columns = Columns(dict.fromkeys(chain.from_iterable(sample)))
            told = {part: [resolve_column(columns, sample, name) for name in names] for part, names in mapping.items()}
            replies = told.pop("reply", None) or _replies(columns, told.get("prompt", []))
            prompt_columns = PromptColumns.among(columns, taken=replies, prompt=told.get("prompt", [None])[0])
            prompt_columns = replace(prompt_columns, **{part: names[0] for part, names in told.items()})
            if not replies or not (
                prompt_columns.prompt or prompt_columns.history or simple(replies[0]) in WHOLE_CHATS
            ):
                raise PreferencesError(
                    f"Its columns, {columns.shown()}, do not say which is the {'prompt' if replies else 'reply'}. "
                    "Say which is which: --map prompt=COLUMN,reply=COLUMN"
                )
        return replace(file, prompt_columns=prompt_columns, replies=tuple(replies))

    def rows(self) -> Rows:
        """Yield all rows of the source with their numbers."""
        with open_table(self.source, known=lambda name: is_known(name) or simple(name) in self.known) as table:
            yield from table.rows

    def questions(self, row: Row | Unreadable) -> list[Question | Unreadable]:
        """Return the prompt of *row* with each of its replies, or why there is none, in the order of `replies`."""
        return [self._question(row, column) for column in self.replies]

    def _question(self, row: Row | Unreadable, column: str) -> Question | Unreadable:
        try:
            cells = usable(row)
            cells = cells | {path: dig(cells, path) for path in (column, *self.prompt_columns.columns.values())}
            asked = self.prompt_columns.of(cells)
            prompt, reply = reply_to(asked, part_of(cells[column], "reply"))
        except Unusable as reason:
            return Unreadable(EMPTY if is_empty(row) else reason)
        return Question(prompt, [reply], asked.tools, asked.chat_template_kwargs or {})


def _replies(columns: Columns, taken: Iterable[str]) -> list[str]:
    """Find the reply columns by name: several candidates, both sides of pairs, or one."""
    taken = list(taken)
    if candidates := [name for name in columns.candidates() if name not in taken]:
        return candidates
    answer = columns.find("answer", without=[*taken, columns.find("prompt") if not taken else None])
    rejected = columns.find("rejected", without=taken)
    chosen = columns.find("chosen", without=[*taken, rejected])
    found = [chosen, rejected] if rejected else [answer]
    return [name for name in found if name]


def require_output_path(path: Path, source: str | Path) -> None:
    """Check, before starting the work, that the result for *source* can be written to *path*.

    Raises:
        PreferencesError: it does not end in `.csv`, `.jsonl` or `.parquet`, has no folder, or is *source* itself.
    """
    if path.suffix.lower() not in _WRITERS:
        raise PreferencesError(
            f"{path}: replies are written as CSV, JSON Lines or Parquet. Use .csv, .jsonl or .parquet."
        )
    require_folder(path)
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise PreferencesError(f"{path} would be written over. Give another name with --out.")


def write_rows(rows: Iterable[Row], columns: Sequence[str], path: Path) -> None:
    """Write *rows* to *path* in the format given by its suffix; an existing file is replaced atomically.

    In CSV, cells that a spreadsheet would run are guarded, and lists and objects are JSON.

    Raises:
        PreferencesError: the folder does not exist, or Parquet cannot hold the rows.
        DiskFullError: the disk is full.
    """
    with atomic_write(path) as file:
        _WRITERS[path.suffix.lower()](rows, columns, file)


def _write_csv(rows: Iterable[Row], columns: Sequence[str], file: IO[bytes]) -> None:
    write_csv(chain([columns], ([_cell(row.get(name)) for name in columns] for row in rows)), file)


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return _json(value) if isinstance(value, list | dict | bool) else str(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _write_jsonl(rows: Iterable[Row], columns: Sequence[str], file: IO[bytes]) -> None:
    for row in rows:
        file.write(_json(row).encode(errors="replace") + b"\n")


def _write_parquet(rows: Iterable[Row], columns: Sequence[str], file: IO[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def tables() -> Iterator[pa.Table]:
        remaining = iter(rows)
        while batch := list(islice(remaining, PARQUET_ROWS)):
            yield pa.Table.from_pydict({name: [row.get(name) for row in batch] for name in columns})

    try:
        pq.write_table(pa.concat_tables(tables(), promote_options="permissive"), file)
    except (pa.ArrowException, TypeError) as error:
        raise PreferencesError(f"Parquet cannot hold these rows ({error}). End the name in .jsonl.") from error


_WRITERS = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
