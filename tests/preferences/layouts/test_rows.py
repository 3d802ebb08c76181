from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpo_hub.errors import PreferencesError
from dpo_hub.preferences import PreferencePair, Preferences, read_preferences
from dpo_hub.preferences.layouts.columns import Columns
from dpo_hub.preferences.layouts.drafts import SAME
from dpo_hub.preferences.layouts.messages import IMAGE
from dpo_hub.preferences.layouts.paired import pairs_layout
from dpo_hub.preferences.layouts.plain import plain_items
from dpo_hub.preferences.layouts.rows import EMPTY, LeftOut, PromptColumns, is_empty, text_only
from dpo_hub.preferences.pairfile import PairFile, write_pairs
from dpo_hub.preferences.table import NotPlain, Plain, Row, Unreadable
from tests.conftest import WriteCsv
from tests.preferences.layouts.conftest import Read, chat, texts

NAMES = ("prompt", "chosen", "rejected")
GROUPED = ("rated answers, one a row", "thumbs up and down")
"""Layouts in which a pair comes of several rows, and names the best of them."""


def told(items: Iterable[Any]) -> tuple[list[PreferencePair], list[LeftOut]]:
    """The pairs among *items*, batches of them as well, and what is left out."""
    kept, left_out = [], []
    for item in items:
        (left_out if isinstance(item, LeftOut) else kept).append(item)
    file = io.BytesIO()
    write_pairs(kept, file)
    return list(PairFile(file)), left_out


CELLS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        [
            *("a", "b", " a ", "", "  ", "[", "{", "<", "<b>", "a>", "a</s>", "<s>a</s>", "a<|im_end|>", "\ud800", "é"),
            *("Human: a\n\nAssistant: b", "Human: a", "[INST] a [/INST]", "### a", "<|im_start|>user\na<|im_end|>"),
            *(
                "USER: a ASSISTANT:",
                "A chat between a b",
                "Below is an instruction",
                '[{"role": "user", "content": "a"}]',
            ),
        ]
    ),
    st.sampled_from([None, 5, True, float("nan"), [], chat("a", "b"), {"role": "user", "content": "a"}, {"a": 1}]),
)
PLAIN_CELLS = CELLS.filter(lambda cell: cell is None or (isinstance(cell, str) and "\ud800" not in cell))
"""What a column of text can hold in Arrow."""


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(PLAIN_CELLS, PLAIN_CELLS, PLAIN_CELLS), max_size=8))
def test_the_quick_path_gives_what_the_careful_one_gives(cells: list[tuple[str | None, ...]]) -> None:
    """Plain or not, a row of text gives the same pair or the same reason, in the same order."""
    layout = pairs_layout(PromptColumns("prompt"), "chosen", "rejected")
    assert layout.plain == NAMES
    rows = [dict(zip(NAMES, row, strict=True)) for row in cells]
    batch = pa.RecordBatch.from_pylist(rows, schema=pa.schema(dict.fromkeys(NAMES, pa.string())))
    items = plain_items(Plain(lambda _: iter([batch]), first=2), layout, NAMES)
    if any(not any((cell or "").strip() for cell in row) for row in cells):
        with pytest.raises(NotPlain):  # other columns, not seen here, say whether the row is empty
            list(items)
        return
    quick = told(items)
    assert quick == told(layout.read(iter(list(enumerate(rows, 2)))))
    assert sorted(item.row for items in quick for item in items) == list(range(2, len(rows) + 2))


@pytest.mark.parametrize(
    ("asking", "columns"),
    [
        (PromptColumns("prompt", system="system"), []),
        (PromptColumns("prompt", history="history"), []),
        (PromptColumns("prompt", tools="tools"), []),
        (PromptColumns("prompt"), ["image"]),
    ],
)
def test_the_quick_path_is_not_taken_where_there_is_more_to_a_row(asking: PromptColumns, columns: list[str]) -> None:
    """A system message, earlier turns, tools and images all take the careful path."""
    layout = text_only(pairs_layout(asking, "chosen", "rejected"), Columns([*NAMES, *columns]))
    assert layout.plain == ()


KNOWN = [
    *("prompt", "chosen", "rejected", "system", "input", "history", "tools", "messages", "conversations", "output"),
    *("response_a", "response_b", "winner", "label", "rating", "rank", "response", "completion", "completions"),
    *("contents", "preferred_output", "non_preferred_output", "response1", "response2", "preference", "data"),
    *("annotations", "generations", "ratings", "human_ref_A", "human_ref_B", "labels", "score_a", "score_b", "id"),
    *("parent_id", "winner_model_a", "winner_model_b", "image", "rejected_response", "chat_template_kwargs", "replies"),
]
INNER = [
    "role",
    "content",
    "from",
    "value",
    "text",
    "parts",
    "tool_calls",
    "type",
    "selected",
    "result",
    "rank",
    "score",
]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(),
    CELLS.filter(lambda cell: isinstance(cell, str)),
    st.sampled_from(["user", "assistant", "system", "a", "tie", "4,5", "👍", "left", "pairwise", "function_call"]),
)
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*INNER, *KNOWN]), inner, max_size=4),
    max_leaves=6,
)
LAYOUTS = [
    ("prompt", "chosen", "rejected"),
    ("chosen", "rejected", "chat_template_kwargs", "tools"),
    ("prompt", "chosen", "rejected", "system", "input", "history", "tools"),
    ("messages", "chosen", "rejected"),
    ("messages", "rejected_response"),
    ("input", "preferred_output", "non_preferred_output"),
    ("contents", "completions", "system_instruction"),
    ("prompt", "response1", "response2", "preference"),
    ("data", "annotations"),
    ("prompt", "replies"),
    ("history", "human_ref_A", "human_ref_B", "labels"),
    ("prompt", "generations", "ratings"),
    ("prompt", "completions"),
    ("prompt", "response_a", "response_b", "winner"),
    ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b"),
    ("prompt", "response_a", "response_b", "score_a", "score_b"),
    ("instruction", "output", "input"),
    ("prompt", "response", "rating"),
    ("prompt", "response", "label"),
    ("conversations", "label"),
    ("id", "parent_id", "prompt", "chosen", "rejected"),
    ("prompt", "chosen", "rejected", "image"),
]
"""Sets of columns, so that junk gets as far as each recogniser."""


@st.composite
def junk_rows(draw: st.DrawFn) -> list[Row]:
    names = draw(st.sampled_from(LAYOUTS))
    extra = draw(st.lists(st.sampled_from(KNOWN), max_size=2))
    first = st.fixed_dictionaries(
        dict.fromkeys(names, JUNK), optional={name: JUNK for name in extra if name not in names}
    )
    other = st.fixed_dictionaries({}, optional=dict.fromkeys([*names, *extra], JUNK))
    return [draw(first), *draw(st.lists(first | other, max_size=3))]


def accounted_for(preferences: Preferences, rows: int) -> None:
    """Assert that each of the *rows* gave either a pair or a reason."""
    used = {pair.row for pair in preferences.pairs}
    left_out = [row for gone in preferences.left_out.values() for row in gone]
    assert preferences.rows == rows
    assert all(len(reason) < 100 for reason in preferences.left_out)
    if preferences.layout not in GROUPED:
        assert sorted([*used, *left_out]) == list(range(1, rows + 1))


@settings(max_examples=400, deadline=None)
@given(junk_rows())
@example([{"data": {"answer1": "x", "answer2": "y"}, "annotations": [{"result": 5}]}, {"data": 5}])
@example([{"prompt": {"replies": 5, "role": "user", "text": "p"}}])
@example([{"prompt": "p", "chosen": "g", "rejected": "b", "tools": 1.5}])
def test_no_row_vanishes(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    """Any objects at all give pairs, reasons, or one complaint; each row gives either a pair or a reason."""
    path = tmp_path_factory.getbasetemp() / "junk.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n{}", encoding="utf-8")
    try:
        preferences = read_preferences(path)
    except PreferencesError as error:
        sentence = str(error)
    else:
        sentence = preferences.sentence()
        accounted_for(preferences, len(rows) + 1)
    assert len(sentence) < 1_500 + len(str(path))


def test_empty_rows_are_told_as_such(read: Read) -> None:
    """A blank line of a table is no pair without a prompt."""
    preferences = read(dict.fromkeys(NAMES, "p") | {"chosen": "g"}, dict.fromkeys(NAMES, " "), dict.fromkeys(NAMES), {})
    assert preferences.left_out == {EMPTY: [2, 3, 4]}
    assert is_empty({"prompt": " ", "chosen": None})
    assert not is_empty({"prompt": "p"})
    assert not is_empty(Unreadable("not valid JSON"))


def test_rows_are_told_as_a_spreadsheet_numbers_them(write_csv: WriteCsv) -> None:
    """The header is row 1, and each reason has its rows, so that they can be found and mended."""
    good = ("Where is it?", "On its way!", "No idea.")
    moved = ("Where", " and when?", "Today.", "Who knows.")
    rows = [NAMES, good, ("", "a", "b"), ("p", " ", "b"), ("p", "same", "same"), ("p", "a"), moved, good]
    preferences = read_preferences(write_csv(rows))
    assert [pair.row for pair in preferences.pairs] == [2, 8]
    assert [*preferences.left_out.values()] == [[3], [4], [5], [6], [7]]
    assert [*preferences.left_out][:4] == ["no prompt", "no chosen", SAME, "no rejected"]
    report = preferences.report()
    assert (report["rows"], report["pairs"]) == (7, 2)


def test_unreadable_rows_keep_their_reason(tmp_path: Path) -> None:
    """What could not be parsed is left out with what is wrong with it."""
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "p", "chosen": "g", "rejected": "b"}\n{"prompt": \n[1]\n', encoding="utf-8")
    preferences = read_preferences(path)
    assert [row for gone in preferences.left_out.values() for row in gone] == [2, 3]
    assert texts(preferences) == [("p", "g", "b")]


@pytest.mark.parametrize("name", ["image", "Images", "video", "audios"])
@pytest.mark.parametrize("blank", [None, "", [], "[]"])
def test_a_row_with_an_image_beside_it(read: Read, name: str, blank: Any) -> None:
    """It is left out; rows whose cell is blank are not."""
    row = {"prompt": "<image>What is this?", "chosen": "g", "rejected": "b"}
    preferences = read({**row, name: ["cat.png"]}, {**row, "prompt": "p", name: blank}, {})
    assert preferences.left_out == {IMAGE: [1], EMPTY: [3]}
    assert texts(preferences) == [("p", "g", "b")]


def test_a_file_of_images_is_refused(read: Read) -> None:
    """Where each row has one, there is nothing to read."""
    row = {"messages": chat("<image>", "g"), "rejected_response": "b", "images": ["cat.png"]}
    with pytest.raises(PreferencesError, match="only text can be trained on"):
        read(row, row)
