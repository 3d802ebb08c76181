from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_hub.preferences import PreferencePair
from dpo_hub.preferences.pairfile import BATCH_BYTES, BATCH_ROWS, Draft, PairFile, plain_pairs, write_pairs

CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {"x": 1}}}],
}
RESULT = {"role": "tool", "content": "12 °C", "tool_call_id": "c1", "name": "f"}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def written(drafts: Iterable[Draft | pa.RecordBatch], **options: str) -> PairFile:
    file = io.BytesIO()
    write_pairs(drafts, file, **options)
    return PairFile(file)


def plain(row: int) -> Draft:
    return Draft(row, f"p{row}", "g", "b")


def test_everything_of_a_pair_comes_back() -> None:
    """Tool calls, tools and template settings survive the file, each row with its own."""
    pairs = [
        PreferencePair(
            [user("p")], [CALL, RESULT, assistant("g")], [assistant("b")], 7, TOOLS, {"enable_thinking": False}
        ),
        PreferencePair([{"role": "system", "content": "S"}, user("p")], [assistant("g")], [CALL], 9),
        PreferencePair([user("ü\n\0")], [assistant("“g”")], [assistant("👍")], 2**40),
    ]
    assert list(written(map(Draft.of, pairs))) == pairs


def test_plain_text_is_said_by_the_usual_roles() -> None:
    """A part that is text is one message, of the user in the prompt and of the assistant in a reply."""
    expected = [PreferencePair([user("p")], [assistant("g")], [assistant("b")], 1)]
    assert list(written([Draft(1, "p", "g", "b")])) == expected
    assert list(written([plain_pairs([1], [pa.array([text]) for text in "pgb"])])) == expected
    assert list(written([Draft(1, "p", [assistant("g")], "b")])) == expected


MESSAGES = st.lists(
    st.builds(
        lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "tool"]), st.text(max_size=5)
    ),
    min_size=1,
    max_size=3,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
JSON = st.dictionaries(TEXT, st.none() | st.integers(-9, 9) | TEXT | st.lists(TEXT, max_size=2), max_size=2)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(TEXT | MESSAGES, TEXT | MESSAGES, st.lists(JSON, max_size=2), JSON), max_size=5))
def test_whatever_is_written_is_read(cells: list[tuple[Any, Any, list[Any], dict[str, Any]]]) -> None:
    """Text or messages, with or without tools, in any mixture."""
    drafts = [Draft(n, part, other, "b", tools, kwargs) for n, (part, other, tools, kwargs) in enumerate(cells)]
    pairs = list(written(drafts))
    assert [pair.row for pair in pairs] == list(range(len(cells)))
    for pair, (prompt, chosen, tools, kwargs) in zip(pairs, cells, strict=True):
        assert pair.prompt == ([user(prompt)] if isinstance(prompt, str) else prompt)
        assert pair.chosen == ([assistant(chosen)] if isinstance(chosen, str) else chosen)
        assert list(pair.tools) == tools
        assert pair.chat_template_kwargs == kwargs


def test_pairs_are_in_order_across_batches() -> None:
    """Plain and other drafts, in more than one batch, keep their order."""
    rows = range(2 * BATCH_ROWS + 1)
    drafts: list[Draft | pa.RecordBatch] = [plain(row) for row in rows[:BATCH_ROWS]]
    rest = rows[BATCH_ROWS:]
    texts = ([f"p{row}" for row in rest], ["g"] * len(rest), ["b"] * len(rest))
    drafts.append(plain_pairs(rest, list(map(pa.array, texts))))
    pairs = written(drafts)
    assert len(pairs) == len(rows)
    assert [(pair.row, pair.prompt[0]["content"]) for pair in pairs] == [(row, f"p{row}") for row in rows]


def test_long_cells_are_written_in_small_batches() -> None:
    """A batch ends at so many characters, so that long cells do not pile up in memory."""
    long = "é" * (BATCH_BYTES // 2)
    file = io.BytesIO()
    write_pairs((Draft(row, "p", long, f"b{row}") for row in range(5)), file)
    assert pq.ParquetFile(file).metadata.num_row_groups >= 2
    pairs = PairFile(file)
    assert [pair.rejected[0]["content"] for pair in pairs] == [f"b{row}" for row in range(5)]
    assert pairs[4].chosen[0]["content"] == long


@pytest.mark.parametrize("index", [0, -1, BATCH_ROWS, -(BATCH_ROWS + 3), BATCH_ROWS + 2])
def test_a_pair_by_its_place(index: int) -> None:
    """Pairs are found from either end, in any batch."""
    rows = range(BATCH_ROWS + 3)
    assert written(map(plain, rows))[index].row == rows[index]


@pytest.mark.parametrize(
    "part",
    [slice(None), slice(1, 3), slice(-2, None), slice(None, None, -1), slice(9, 2), slice(BATCH_ROWS - 1, None, 2)],
)
def test_a_slice_of_pairs(part: slice) -> None:
    """A slice is what it would be of a list, backwards and across batches too."""
    rows = range(BATCH_ROWS + 3)
    assert [pair.row for pair in written(map(plain, rows))[part]] == list(rows[part])


@pytest.mark.parametrize("index", [3, -4])
def test_a_place_that_is_not_there(index: int) -> None:
    """The end is told as a list tells it, so that loops over indexes end."""
    with pytest.raises(IndexError):
        written(map(plain, range(3)))[index]


def test_a_file_of_no_pairs() -> None:
    """Nothing is a file too."""
    pairs = written([])
    assert (len(pairs), list(pairs), pairs[:]) == (0, [], [])


def test_splits_are_kept() -> None:
    """A pair comes back with the split it was written with, or none."""
    drafts = [plain(1)._replace(split="train"), plain(2), plain(3)._replace(split="held_out")]
    assert [(pair.row, split) for pair, split in written(drafts).with_splits()] == [
        (1, "train"),
        (2, None),
        (3, "held_out"),
    ]


def test_pairs_can_be_read_at_the_same_time() -> None:
    """Two readers of one file do not get into each other's way."""
    pairs = written(map(plain, range(BATCH_ROWS + 1)), compression="none")
    one, two = iter(pairs), iter(pairs)
    assert next(one).row == next(two).row == 0
    assert [next(one).row, pairs[2].row, next(two).row, next(one).row] == [1, 2, 1, 2]
    assert [pair.row for pair in two] == list(range(2, BATCH_ROWS + 1))
