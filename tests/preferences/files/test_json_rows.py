from __future__ import annotations

import io
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_hub.errors import PreferencesError
from dpo_hub.preferences.files import json_rows
from dpo_hub.preferences.files.json_rows import read_json
from dpo_hub.preferences.table import Row, Unreadable

Read = list[tuple[int, Row | Unreadable]]
ROWS = [{"prompt": f"ask {n}", "chosen": 'a "good"\nreply, {1}', "rejected": "é 👍"} for n in range(4)]


def read(text: str) -> Read:
    return list(read_json(io.StringIO(text, newline=""), known={"prompt", "chosen", "rejected"}.__contains__))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\n".join(map(json.dumps, ROWS)),
        "\r\n".join(map(json.dumps, ROWS)),
        "\n\n" + "\n\n".join(map(json.dumps, ROWS)) + "\n\n",
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
        ",\n".join(map(json.dumps, ROWS)),
        json.dumps({"version": 2, "data": ROWS}),
        json.dumps({"data": ROWS}, indent=1),
        json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}),
        json.dumps({key: {str(n): row[key] for n, row in enumerate(ROWS)} for key in ROWS[0]}),
    ],
    ids="array indented lines crlf blank-lines values-over-lines commas held held-indented lists pandas".split(),
)
def test_rows_come_out_of_every_shape_of_json(text: str) -> None:
    """Arrays, lines, values that span lines, an object that holds the rows, and tables by columns are all rows."""
    assert [row for _, row in read(text)] == ROWS


def test_a_lone_row_is_a_row() -> None:
    """An object with known names is a row, even where one of its cells is a list of objects."""
    row = {"prompt": [{"role": "user", "content": "Hi"}], "chosen": "a", "rejected": "b"}
    assert read(json.dumps(row, indent=1)) == [(1, row)]


@pytest.mark.parametrize(
    "broken", ['{"prompt": "a", "cho', "{'prompt': 1}", '{"prompt": "a" "b"}', "[" * 100_000, "x", "7"]
)
@pytest.mark.parametrize("place", [0, 2, 3])
def test_one_bad_line_costs_one_row(broken: str, place: int) -> None:
    """Lines before and after a bad one are read, and the bad one is told by its number."""
    lines = [json.dumps(row) for row in ROWS]
    lines[place] = broken
    found = read("\n".join(lines))
    assert [row for _, row in found if isinstance(row, dict)] == [row for at, row in enumerate(ROWS) if at != place]
    assert [number for number, row in found if isinstance(row, Unreadable)] == [place + 1]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_element_costs_one_row_of_an_array(indent: int | None, place: int) -> None:
    """After an element that cannot be parsed, reading goes on where the next row begins."""
    text = json.dumps(ROWS, indent=indent).replace(f'"ask {place}"', f'"ask" {place}"')
    found = read(text)
    assert [row for _, row in found if isinstance(row, dict)] == [row for at, row in enumerate(ROWS) if at != place]
    assert [number for number, row in found if isinstance(row, Unreadable)] == [place + 1]


def test_what_is_no_object_is_told() -> None:
    """Other values than objects are unreadable rows that say what they are."""
    found = read('[{"prompt": "a"}, 1, [2], "x", null]')
    assert [str(row) for _, row in found[1:]] == [
        f"not an object with names and values but {kind}" for kind in ("a number", "a list", "text", "null")
    ]


def test_line_numbers_are_those_of_an_editor() -> None:
    """Values that span lines are numbered by the line they begin on."""
    text = '\n{\n "prompt": "a"\n}\n\n{"prompt":\n"b"}\n'
    assert [number for number, _ in read(text)] == [2, 6]


def test_raw_line_breaks_in_text_are_read() -> None:
    """A string with a line break in it is a flaw, and what it says is plain."""
    assert read('[{"prompt": "a\nb"}]') == [(1, {"prompt": "a\nb"})]


@pytest.mark.parametrize("chunk", [16, 61, 4096])
def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Wherever the pieces that a file is read in end, the rows are the same, bad ones too."""
    rows = ROWS * 9
    texts = [json.dumps(rows), "\n".join(map(json.dumps, rows)), json.dumps(rows, indent=3)]
    texts += [text[:200] + "#" + text[200:] for text in texts]
    expected = [read(text) for text in texts]
    monkeypatch.setattr(json_rows, "CHUNK_CHARACTERS", chunk)
    monkeypatch.setattr(json_rows, "WINDOW_CHARACTERS", chunk // 2)
    monkeypatch.setattr(json_rows, "SEEK_OVERLAP", 12)
    assert [read(text) for text in texts] == expected


@pytest.mark.parametrize(
    "text", ['[{"prompt": "' + "a" * 5000, '{"prompt": "' + "x" * 5000, '{"data": [' + "1," * 3000]
)
def test_a_row_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A row over the limit ends the reading with the limit told."""
    monkeypatch.setattr(json_rows, "CHUNK_CHARACTERS", 256)
    monkeypatch.setattr(json_rows, "WINDOW_CHARACTERS", 256)
    monkeypatch.setattr(json_rows, "MAX_ROW_CHARACTERS", 1024)
    with pytest.raises(PreferencesError, match=r"longer than .* the limit for one row"):
        read(text)


def test_a_long_line_costs_that_row_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of JSON Lines, a line over the limit is told, and the ones around it are read."""
    monkeypatch.setattr(json_rows, "CHUNK_CHARACTERS", 256)
    monkeypatch.setattr(json_rows, "MAX_ROW_CHARACTERS", 1024)
    row, long = '{"prompt": 1}', '{"prompt": "' + "x" * 5000 + '"}'
    told = "longer than 0 million characters"
    expected = [(1, {"prompt": 1}), (2, told), (3, {"prompt": 1}), (5, told)]
    assert read(f"{row}\n{long}\n{row}\n\n{long}") == expected
    assert read(f"{row}\n{long}\r\n{row}\r\n\n{long}\n") == expected


@pytest.mark.parametrize("chunk", [3, 2**16])
@pytest.mark.parametrize(
    ("after", "more"),
    [
        ("\n[{}, {}]", [{}, {}]),
        ("\n[]\n[{}]\n", [{}]),
        ("\n{}\n{}", [{}, {}]),
        (", {},", [{}]),
        ("  \n", []),
        ("; what?", ["more after the end of the array"]),
        ("]", ["more after the end of the array"]),
        ('\n```\n[{"prompt": 3}]', ["more after the end of the array", {"prompt": 3}]),
    ],
)
def test_what_follows_an_array_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, after: str, more: list[Row | str], chunk: int
) -> None:
    """More arrays and objects are more rows; all else is told once."""
    monkeypatch.setattr(json_rows, "WINDOW_CHARACTERS", chunk)
    assert read('[{"prompt": 1}]' + after) == list(enumerate([{"prompt": 1}, *more], 1))


@pytest.mark.parametrize("text", [json.dumps(ROWS), "\n".join(map(json.dumps, ROWS)), json.dumps(ROWS, indent=1)])
@pytest.mark.parametrize("above", ["# exported", "```json\n", "\ufeff\ufeff", "# one\n\n# two"])
def test_lines_above_the_first_value_are_told(text: str, above: str) -> None:
    """A comment or a fence is one row that cannot be read, and the rows are read all the same."""
    found = read(f"{above}\n{text}")
    numbers = [number for number, _ in found]
    assert [row for _, row in found if isinstance(row, dict)] == ROWS
    assert len(found) == len(ROWS) + len([line for line in above.split("\n") if line.strip("\ufeff")])
    assert numbers == sorted(set(numbers))


def test_many_bad_elements_take_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mistake costs a look at a small window, not at all that was read."""
    looked_at = []
    decode = json_rows._decode
    monkeypatch.setattr(json_rows, "_decode", lambda text, at: looked_at.append(len(text)) or decode(text, at))
    found = read("[" + ",".join(['{"prompt":"a",}'] * 60_000) + "]")
    assert len(found) == 60_000
    assert max(looked_at[5_000:]) <= 2 * json_rows.WINDOW_CHARACTERS


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters() | st.sampled_from('[]{}",:\\\n 1'), max_size=60))
def test_any_text_ends(text: str) -> None:
    """Whatever the text, there are rows or reasons in order, and an end."""
    found = read(text)
    assert all(isinstance(row, (dict, Unreadable)) for _, row in found)
    assert [number for number, _ in found] == sorted({number for number, _ in found})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text() | st.integers() | st.lists(st.text())), min_size=2),
    st.randoms(),
)
def test_what_json_writes_is_read(rows: list[Row], order: random.Random) -> None:
    """Any rows come back as they were written, as an array and as lines."""
    rows = [{"prompt": "first"}, *rows]
    indent = order.choice([None, 2])
    assert [row for _, row in read(json.dumps(rows, indent=indent))] == rows
    assert [row for _, row in read("\n".join(map(json.dumps, rows)))] == rows
