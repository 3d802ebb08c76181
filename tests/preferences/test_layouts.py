from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpo_hub.errors import PreferencesError
from dpo_hub.preferences import read_preferences, text_of
from tests.conftest import WriteCsv

PAIR = ("Where is it?", "On its way!", "No idea.")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_with_prompt_chosen_rejected(write_csv: WriteCsv) -> None:
    """A row of a CSV file becomes a pair of chat messages, with the row it came from."""
    (pair,) = read_preferences(write_csv([("prompt", "chosen", "rejected"), PAIR])).pairs
    assert pair.messages == {
        "prompt": [{"role": "user", "content": "Where is it?"}],
        "chosen": [{"role": "assistant", "content": "On its way!"}],
        "rejected": [{"role": "assistant", "content": "No idea."}],
    }
    assert pair.row == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_case_and_byte_order_mark(tmp_path: Path, delimiter: str) -> None:
    """Other delimiters, upper-case names, padding and a BOM are read the same."""
    lines = [delimiter.join((" Prompt", "CHOSEN ", "Rejected")), delimiter.join(PAIR)]
    path = tmp_path / "pairs.csv"
    path.write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    assert [text_of(pair.chosen) for pair in read_preferences(path).pairs] == ["On its way!"]


def test_quoted_newlines_and_delimiters_stay_in_their_cell(write_csv: WriteCsv) -> None:
    """A cell keeps its commas, quotes and line breaks."""
    text = 'one,\n"two"; three'
    (pair,) = read_preferences(write_csv([("prompt", "chosen", "rejected"), (text, "a", "b")])).pairs
    assert text_of(pair.prompt) == text


@pytest.mark.parametrize("as_lines", [True, False])
def test_json_array_and_json_lines(tmp_path: Path, as_lines: bool) -> None:
    """A JSON array and JSON Lines are read alike; an input is put under its instruction."""
    rows = [{"instruction": "Mend", "input": "teh", "chosen": "the", "rejected": "teh!"}] * 2
    text = "\n".join(map(json.dumps, rows)) if as_lines else json.dumps(rows)
    pairs = read_preferences(write(tmp_path / "pairs.json", text)).pairs
    assert [text_of(pair.prompt) for pair in pairs] == ["Mend\n\nteh"] * 2


def test_message_lists_and_a_system_column(tmp_path: Path) -> None:
    """Cells may hold chat messages, and a system column comes first."""
    row = {
        "system": "Be kind.",
        "prompt": [{"role": "user", "content": "Hi"}],
        "chosen": [{"role": "assistant", "content": "Hello!"}],
        "rejected": "What.",
    }
    (pair,) = read_preferences(write(tmp_path / "pairs.jsonl", json.dumps(row))).pairs
    assert [message["role"] for message in pair.prompt] == ["system", "user"]


def test_a_row_whose_cells_moved_is_left_out(write_csv: WriteCsv) -> None:
    """An unquoted comma would put half a prompt on the chosen side; such a row is told, not trained on."""
    rows = [("prompt", "chosen", "rejected"), PAIR, ("Where", " and when?", "Today.", "Who knows.")]
    assert read_preferences(write_csv(rows)).left_out == {"cells beyond the header (an unquoted delimiter?)": [2]}


def test_a_line_separator_inside_a_cell_ends_no_row(write_csv: WriteCsv) -> None:
    """Only line breaks end rows, not the other characters that Unicode calls separators."""
    (pair,) = read_preferences(write_csv([("prompt", "chosen", "rejected"), ("a\u2028b\x0cc", "d", "e")])).pairs
    assert text_of(pair.prompt) == "a\u2028b\x0cc"


def test_rows_left_out_are_told_by_reason_and_row(write_csv: WriteCsv) -> None:
    """Empty cells and pairs without a difference are left out, counted, and never lost silently."""
    rows = [("prompt", "chosen", "rejected"), PAIR, ("", "a", "b"), ("p", " ", "b"), ("p", "same", "same"), ("p", "a")]
    preferences = read_preferences(write_csv(rows))
    assert preferences.left_out == {
        "no prompt": [2],
        "no chosen": [3],
        "chosen and rejected are the same": [4],
        "no rejected": [5],
    }
    report = preferences.report()
    assert (report["rows"], report["pairs"]) == (5, 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("  \n \n", "is empty"),
        ("prompt,chosen,rejected\n", "no rows"),
        ("question,good,bad\na,b,c\n", "no column prompt (or instruction) and no column chosen and no column rejected"),
        ("prompt,chosen\na,b\n", "no column rejected; it has 'prompt', 'chosen'"),
        ("prompt,chosen,rejected\n,,\n", "none of its 1 rows"),
        ('{"prompt": "a"}\n{"prompt": \n', "line 2: not valid JSON"),
        ("[1, 2]", "row 1: expected an object"),
        ("[]", "no rows"),
        ('[{"prompt": "a", "chosen": [1], "rejected": "b"}]', "row 1, column chosen: expected chat messages"),
    ],
)
def test_bad_files_get_one_clear_sentence(tmp_path: Path, text: str, told: str) -> None:
    """What is wrong is named with the file, and where in it."""
    path = write(tmp_path / "bad.csv", text)
    with pytest.raises(PreferencesError) as raised:
        read_preferences(path)
    assert str(path) in str(raised.value)
    assert told in str(raised.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    """A missing file and a binary one are told apart."""
    with pytest.raises(PreferencesError, match="There is no file"):
        read_preferences(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x9c")
    with pytest.raises(PreferencesError, match="not UTF-8"):
        read_preferences(tmp_path / "binary.csv")
