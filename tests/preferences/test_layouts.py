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
    assert pair.row == 2, "the row as a spreadsheet shows it"


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


USER = {"role": "user", "content": "Hi"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("Hello!", "No."))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "Hi", "chosen": {"role": "assistant", "content": "a"}, "rejected": "b"}, "neither text nor a list"),
        ({"prompt": "Hi", "chosen": [1], "rejected": "b"}, "something other than chat messages"),
        ({"prompt": "Hi", "chosen": [USER], "rejected": "b"}, "no chosen"),
        ({"prompt": "Ho", "chosen": [USER, GOOD], "rejected": "b"}, "a turn in chosen that is not the assistant's"),
        ({"prompt": [USER, GOOD], "chosen": "a", "rejected": "b"}, "a prompt that ends with the assistant"),
        ({"prompt": "Hi \ud83d", "chosen": "a", "rejected": "b"}, "broken characters in prompt"),
    ],
)
def test_a_row_that_is_no_pair_is_left_out_with_its_reason(tmp_path: Path, row: dict[str, object], told: str) -> None:
    """What cannot be trained on as it stands is told, and the rest of the file is used."""
    good = {"prompt": "Hi", "chosen": "Hello!", "rejected": "No."}
    preferences = read_preferences(write(tmp_path / "pairs.json", json.dumps([good, row])))
    assert len(preferences.pairs) == 1
    ((reason, rows),) = preferences.left_out.items()
    assert told in reason
    assert rows == [2]
    assert f"1 row left out ({reason}: row 2)" in preferences.sentence()


@pytest.mark.parametrize("system", [[], [{"role": "system", "content": "Be kind."}]])
def test_a_reply_may_repeat_the_prompt(tmp_path: Path, system: list[dict[str, str]]) -> None:
    """Where chosen and rejected are whole chats, only the reply is the reply."""
    row = {"prompt": "Hi", "chosen": [*system, USER, GOOD], "rejected": [*system, USER, BAD]}
    row |= {"system": system[0]["content"]} if system else {}
    (pair,) = read_preferences(write(tmp_path / "pairs.json", json.dumps([row]))).pairs
    assert pair.messages == {"prompt": [*system, USER], "chosen": [GOOD], "rejected": [BAD]}


def test_chat_messages_in_a_cell_of_csv(write_csv: WriteCsv) -> None:
    """Message lists written as JSON into a spreadsheet are read as messages; other brackets are text."""
    rows = [("prompt", "chosen", "rejected"), (json.dumps([USER]), json.dumps([GOOD]), "[{no JSON")]
    (pair,) = read_preferences(write_csv(rows)).pairs
    assert (pair.prompt, pair.chosen, text_of(pair.rejected)) == ([USER], [GOOD], "[{no JSON")


def test_an_input_goes_under_the_last_turn(tmp_path: Path) -> None:
    """The input belongs to what is asked, not to what was said before."""
    row = {"instruction": [USER, GOOD, USER], "input": "there", "chosen": "a", "rejected": "b"}
    (pair,) = read_preferences(write(tmp_path / "pairs.json", json.dumps([row]))).pairs
    assert [message["content"] for message in pair.prompt] == ["Hi", "Hello!", "Hi\n\nthere"]


def test_a_row_whose_cells_moved_is_left_out(write_csv: WriteCsv) -> None:
    """An unquoted comma would put half a prompt on the chosen side; such a row is told, not trained on."""
    rows = [("prompt", "chosen", "rejected"), PAIR, ("Where", " and when?", "Today.", "Who knows.")]
    assert read_preferences(write_csv(rows)).left_out == {"cells beyond the header (an unquoted delimiter?)": [3]}


def test_a_line_separator_inside_a_cell_ends_no_row(write_csv: WriteCsv) -> None:
    """Only line breaks end rows, not the other characters that Unicode calls separators."""
    (pair,) = read_preferences(write_csv([("prompt", "chosen", "rejected"), ("a\u2028b\x0cc", "d", "e")])).pairs
    assert text_of(pair.prompt) == "a\u2028b\x0cc"


def test_rows_left_out_are_told_by_reason_and_row(write_csv: WriteCsv) -> None:
    """Empty cells and pairs without a difference are left out, counted, and never lost silently."""
    rows = [("prompt", "chosen", "rejected"), PAIR, ("", "a", "b"), ("p", " ", "b"), ("p", "same", "same"), ("p", "a")]
    preferences = read_preferences(write_csv(rows))
    assert preferences.left_out == {
        "no prompt": [3],
        "no chosen": [4],
        "chosen and rejected the same": [5],
        "no rejected": [6],
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
        ("prompt,chosen,rejected\na,,\n", "none of its 1 rows gives a pair: no chosen (1)"),
        ('{"prompt": "a"}\n{"prompt": \n', "line 2: not valid JSON"),
        ("[1, 2]", "row 1: expected an object"),
        ("[]", "no rows"),
        ('prompt,chosen,rejected\n"a,b,c\nd,e,f\n', "A quote may be missing or one too many"),
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
