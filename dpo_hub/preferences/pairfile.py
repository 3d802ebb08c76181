"""Stores pairs in a Parquet file, written and read in batches, so that memory stays constant however many there are.

The columns are those of TRL's conversational format: `prompt`, `chosen` and `rejected` are lists of messages with role
and content. Anything else in a message (tool calls) is JSON in its `more`; `tools` and `chat_template_kwargs` are also
JSON, because Arrow would give every row the union of all their keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import accumulate, chain
from threading import Lock
from typing import IO, TYPE_CHECKING, Any, NamedTuple, overload

from .pairs import Messages, PreferencePair

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 2_000
BATCH_BYTES = 8 * 2**20
"""A batch is written when it reaches this number of rows or bytes, whichever comes first."""

PART_ROLES = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
"""The parts of a pair, and the role of each if it is plain text."""


class Draft(NamedTuple):
    """A pair to be written to the file. A part that is a `str` is one message with the part's usual role."""

    row: int
    prompt: str | Messages
    chosen: str | Messages
    rejected: str | Messages
    tools: Sequence[Any] = ()
    chat_template_kwargs: Mapping[str, Any] | None = None
    split: str | None = None

    @classmethod
    def of(cls, pair: PreferencePair, split: str | None = None) -> Draft:
        return cls(pair.row, pair.prompt, pair.chosen, pair.rejected, pair.tools, pair.chat_template_kwargs, split)


def write_pairs(items: Iterable[Draft | pa.RecordBatch], file: IO[bytes], *, compression: str = "snappy") -> None:
    """Write drafts, and batches from `plain_pairs`, to the open *file* as Parquet."""
    import pyarrow.parquet as pq

    roles = [f"{part}.list.element.role" for part in PART_ROLES]
    options: dict[str, Any] = {"use_dictionary": roles, "write_statistics": False, "compression": compression}
    with pq.ParquetWriter(file, _schema(), **options) as writer, ThreadPoolExecutor(1) as executor:
        written: Future[None] | None = None
        for table in _tables(_batches(items)):
            if written:
                written.result()
            written = executor.submit(writer.write_table, table)  # while the next rows are read
        if written:
            written.result()


def _batches(items: Iterable[Draft | pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    drafts: list[Draft] = []
    characters = 0
    for item in items:
        if isinstance(item, Draft):
            drafts.append(item)
            characters += len(item.prompt) + len(item.chosen) + len(item.rejected)
            if len(drafts) < BATCH_ROWS and characters < BATCH_BYTES:
                continue
        if drafts:
            yield _record_batch(drafts)
            drafts, characters = [], 0
        if not isinstance(item, Draft):
            yield item
    if drafts:
        yield _record_batch(drafts)


def _tables(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield tables of a few thousand rows or a few megabytes, because a file in small pieces is slow to read."""
    import pyarrow as pa

    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        waiting.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= BATCH_ROWS or size >= BATCH_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.Table.from_batches(waiting)


@cache
def _schema() -> pa.Schema:
    import pyarrow as pa

    text = pa.string()
    messages = pa.list_(pa.struct({"role": text, "content": text, "more": text}))
    further = {"row": pa.int64(), "tools": text, "chat_template_kwargs": text, "split": text}
    return pa.schema({**dict.fromkeys(PART_ROLES, messages), **further})


def plain_pairs(rows: Sequence[int], texts: Sequence[pa.StringArray]) -> pa.RecordBatch:
    """Make a batch of plain-text pairs for `write_pairs` from the *texts* of prompt, chosen and rejected by column."""
    return _columns(rows, texts, *[[None] * len(rows)] * 3)


def _record_batch(drafts: list[Draft]) -> pa.RecordBatch:
    rows, *parts, tools, kwargs, splits = zip(*drafts, strict=True)
    return _columns(rows, parts, tools, kwargs, splits)


def _columns(rows: Sequence[int], parts: Sequence[Any], tools: Any, kwargs: Any, splits: Any) -> pa.RecordBatch:
    import pyarrow as pa

    lists = [_message_lists(part, role) for part, role in zip(parts, PART_ROLES.values(), strict=True)]
    further = [_strings(tools, _json), _strings(kwargs, _json), _strings(splits)]
    return pa.RecordBatch.from_arrays([*lists, pa.array(rows, pa.int64()), *further], schema=_schema())


def _strings(values: Sequence[Any], write: Callable[[Any], str | None] = lambda value: value) -> pa.StringArray:
    """Make a column that is mostly empty."""
    import pyarrow as pa

    return pa.array(map(write, values), pa.string()) if any(values) else pa.nulls(len(values), pa.string())


def _message_lists(parts: Sequence[str | Messages] | pa.StringArray, role: str) -> pa.ListArray:
    """Make one list of messages per part; plain texts, the usual case, need no Python object per message."""
    import pyarrow as pa

    if isinstance(parts, pa.Array) or set(map(type, parts)) == {str}:
        counts: Iterable[int] = range(len(parts) + 1)
        columns = [pa.repeat(role, len(parts)), pa.array(parts, pa.string()), pa.nulls(len(parts), pa.string())]
    else:
        lists = [[{"role": role, "content": part}] if isinstance(part, str) else part for part in parts]
        messages = list(chain.from_iterable(lists))
        counts = accumulate(map(len, lists), initial=0)
        contents = ([message[key] for message in messages] for key in ("role", "content"))
        more = [{key: message[key] for key in message if key not in ("role", "content")} for message in messages]
        columns = [*(pa.array(texts, pa.string()) for texts in contents), _strings(more, _json)]
    structs = pa.StructArray.from_arrays(columns, fields=list(_schema().field("prompt").type.value_type))
    return pa.ListArray.from_arrays(pa.array(counts, pa.int32()), structs)


def _json(value: Any) -> str | None:
    return json.dumps(value, ensure_ascii=False) if value else None


class PairFile(Sequence[PreferencePair]):
    """The pairs of a Parquet file written by `write_pairs`; only the part in use is in memory.

    *file* is a path, or an open file that stays open as long as this object exists. Several threads may read at once.
    """

    def __init__(self, file: Any) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(file)
        self._lock = Lock()
        groups = range(self._file.metadata.num_row_groups)
        self._ends = list(accumulate(self._file.metadata.row_group(group).num_rows for group in groups))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[PreferencePair]:
        return (pair for pair, _ in self.with_splits())

    def with_splits(self) -> Iterator[tuple[PreferencePair, str | None]]:
        """Yield each pair with the split that was written for it."""
        for group in range(len(self._ends)):
            for row in self._group(group).to_pylist():
                yield _pair(row), row["split"]

    def _group(self, group: int) -> pa.Table:
        with self._lock:  # threads share the position in the file
            return self._file.read_row_group(group, use_threads=False)

    @overload
    def __getitem__(self, index: int) -> PreferencePair: ...
    @overload
    def __getitem__(self, index: slice) -> list[PreferencePair]: ...
    def __getitem__(self, index: int | slice) -> PreferencePair | list[PreferencePair]:
        asked = range(len(self))[index]
        if isinstance(asked, int):
            return self[asked : asked + 1][0]
        found: dict[int, PreferencePair] = {}
        for group, end in enumerate(self._ends):
            start = self._ends[group - 1] if group else 0
            if inside := [place for place in asked if start <= place < end]:
                table = self._group(group)
                found |= {place: _pair(table.slice(place - start, 1).to_pylist()[0]) for place in inside}
        return [found[place] for place in asked]


def _pair(row: dict[str, Any]) -> PreferencePair:
    prompt, chosen, rejected = ([_message(message) for message in row[part]] for part in PART_ROLES)
    tools, kwargs = (json.loads(row[name]) if row[name] else None for name in ("tools", "chat_template_kwargs"))
    return PreferencePair(prompt, chosen, rejected, row["row"], tools or (), kwargs or {})


def _message(stored: dict[str, Any]) -> dict[str, Any]:
    more = stored.pop("more")
    return stored | json.loads(more) if more else stored
