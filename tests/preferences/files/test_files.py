from __future__ import annotations

import contextlib
import gzip
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpo_hub.errors import PreferencesError
from dpo_hub.preferences import files, read_preferences, text_of
from dpo_hub.preferences.files import open_table
from dpo_hub.preferences.pairs import Preferences

ROWS = [{"prompt": "Où est-il ?", "chosen": "Là-bas.", "rejected": "Ça, je l’ignore."}] * 3
CSV = "prompt;chosen;rejected\n" + "".join(";".join(row.values()) + "\n" for row in ROWS)
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def parquet(path: Path) -> bytes:
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path.read_bytes()


def texts(preferences: Preferences) -> list[tuple[str, ...]]:
    return [tuple(text_of(part) for part in (pair.prompt, pair.chosen, pair.rejected)) for pair in preferences.pairs]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        ("pairs.csv", CSV.encode(), "UTF-8"),
        ("pairs.csv", CSV.encode("utf-8-sig"), "UTF-8 with BOM"),
        ("pairs.csv", CSV.encode("utf-16"), "UTF-16"),
        ("pairs.txt", CSV.encode("cp1252"), "Windows-1252"),
        ("pairs.jsonl", LINES.encode(), "JSON, UTF-8"),
        ("pairs.json", json.dumps(ROWS).encode("utf-16-le"), "JSON, UTF-16"),
        ("pairs", LINES.encode("cp1252"), "JSON, Windows-1252"),
        ("pairs.parquet", None, "Parquet"),
    ],
)
def test_every_kind_of_file_in_every_encoding(
    tmp_path: Path, name: str, content: bytes | None, note: str, packed: bool
) -> None:
    """The kind is known by the content, plain or gzipped, and the encoding is told."""
    content = content or parquet(tmp_path / "written.parquet")
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    preferences = read_preferences(path)
    assert texts(preferences) == [tuple(row.values()) for row in ROWS]
    assert note in preferences.notes[0]
    assert preferences.rows == 3


def test_a_stray_byte_is_read_and_told(tmp_path: Path) -> None:
    """A byte that is no UTF-8 costs nothing, and the report says that there was one."""
    path = tmp_path / "pairs.csv"
    path.write_bytes(CSV.encode() + "Un café ?;Oui.;Non.\n".encode("cp1252"))
    preferences = read_preferences(path)
    assert texts(preferences)[-1][0] == "Un café ?"
    assert any(note.startswith("1 byte read as Windows-1252") for note in preferences.notes)


def test_lines_above_the_header_are_told(tmp_path: Path) -> None:
    """What stands before the header is passed over, and rows keep the numbers that a spreadsheet shows."""
    path = tmp_path / "pairs.csv"
    path.write_text(f"Exported on Monday\n\n{CSV}", encoding="utf-8")
    preferences = read_preferences(path)
    assert [pair.row for pair in preferences.pairs] == [4, 5, 6]
    assert "passed over" in preferences.notes[1]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("pairs.csv", b"", "The file is empty"),
        ("pairs.csv", b"\xef\xbb\xbf \n", "The file is empty"),
        ("pairs.csv.gz", gzip.compress(b"", mtime=0), "The file is empty"),
        ("pairs.xlsx", b"PK\x03\x04rest", "Save it as CSV"),
        (
            "pairs.csv.gz",
            gzip.compress(gzip.compress(CSV.encode(), mtime=0), mtime=0),
            "It is packed twice, gzip inside gzip",
        ),
        ("pairs.pdf", b"%PDF-1.7", "this is a pdf document"),
        ("pairs.parquet", b"PAR1" + b"\0" * 40, "The Parquet file is damaged"),
        ("pairs.parquet.gz", gzip.compress(b"PAR1" + b"\0" * 40, mtime=0), "The Parquet file is damaged"),
        ("pairs.csv.gz", gzip.compress(CSV.encode() * 99, mtime=0)[:-20], "The gzip file is damaged or cut off"),
        ("pairs.csv", b"prompt,chosen,rejected\n", "no row that can be read"),
        ("pairs.jsonl", b'{"prompt": }\n{"a"', "no row that can be read"),
        ("pairs.json", b"[]", "no row that can be read"),
    ],
)
def test_what_is_no_table_is_told_in_a_sentence(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    """Each such file ends in one sentence that begins with its name."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PreferencesError, match=f"(?i){told}") as raised:
        read_preferences(path)
    assert str(raised.value).startswith(str(path))


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    """A name that is none, and a folder, are told."""
    with pytest.raises(PreferencesError, match="no such file"):
        read_preferences(tmp_path / "absent.csv")
    with pytest.raises(PreferencesError, match="a folder"):
        read_preferences(tmp_path)


def repeated(head: bytes, size: int) -> Callable[[Path], None]:
    """Write *head* and *size* MB of one letter, gzipped."""

    def write(path: Path) -> None:
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(head)
            for _ in range(size):
                file.write(b"a" * 2**20)

    return write


@pytest.mark.parametrize("head", [b"prompt,chosen,rejected\n", b'[{"prompt": "', b"PAR1"])
def test_a_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    """A small file that unpacks to a huge one is refused by its ratio, whatever it holds."""
    monkeypatch.setattr(files, "INFLATION_FLOOR", 2**22)
    path = tmp_path / "bomb.gz"
    repeated(head, 16)(path)
    with pytest.raises(PreferencesError, match="unpacks to more than 100 times its size"):
        read_preferences(path)


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of a table is as long as the limit."""
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 2**20)
    path = tmp_path / "line.csv"
    path.write_bytes(b"prompt,chosen,rejected\n" + b"a" * 2**22)
    with pytest.raises(PreferencesError, match="a line of more than 1 MB"):
        read_preferences(path)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_too_many_columns_are_refused(tmp_path: Path, kind: str) -> None:
    """A table of ten thousand columns is told so."""
    names = [f"column {n}" for n in range(10_000)]
    path = tmp_path / f"wide.{kind}"
    if kind == "csv":
        path.write_text(",".join(names) + "\n" + ",".join("x" for _ in names) + "\n")
    else:
        pq.write_table(pa.table({name: ["x"] for name in names}), path)
    with pytest.raises(PreferencesError, match="10,000 columns, and 1,000 is the limit"):
        read_preferences(path)


def test_a_guarded_formula_comes_back_from_csv_only(tmp_path: Path) -> None:
    """The apostrophe that keeps a spreadsheet from running a cell goes; in JSON it belongs to the text."""
    table, lines = tmp_path / "pairs.csv", tmp_path / "pairs.jsonl"
    table.write_text("prompt,chosen,rejected\n'=1+1,'-2,'tis\n")
    lines.write_text(json.dumps({"prompt": "'=1+1", "chosen": "'-2", "rejected": "'tis"}) + "\n")
    assert texts(read_preferences(table)) == [("=1+1", "-2", "'tis")]
    assert texts(read_preferences(lines)) == [("'=1+1", "'-2", "'tis")]


@pytest.mark.parametrize(
    ("name", "before", "rows"),
    [
        ("pairs.jsonl", "# exported\n", [2, 3, 4]),
        ("pairs.ndjson", "```json\n", [2, 3, 4]),
        ("pairs.json", "\ufeff\ufeff", [1, 2, 3]),
        ("pairs", "\n ", [2, 3, 4]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_json_is_known_by_its_name(tmp_path: Path, name: str, before: str, rows: list[int], packed: bool) -> None:
    """A file that is called JSON is read as such, even where it does not begin so."""
    path = tmp_path / (f"{name}.GZ" if packed else name)
    content = (before + LINES).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    preferences = read_preferences(path)
    assert [pair.row for pair in preferences.pairs] == rows
    assert preferences.notes[0].startswith("JSON")


@pytest.mark.parametrize(
    ("begin", "kind"),
    [
        ("[prompt],[chosen],[rejected]\na,b,c\n", "CSV"),
        ("[2024-01-01 10:00] export started\nprompt,chosen,rejected\na,b,c\n", "CSV"),
        ("[\n" + LINES.split("\n")[0] + "\n]", "JSON"),
        ("[null, " + LINES.split("\n")[0] + "]", "JSON"),
        ("[7, " + LINES.split("\n")[0] + "]", "JSON"),
        ("[[], " + LINES.split("\n")[0] + "]", "JSON"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_bracket_does_not_make_it_json(tmp_path: Path, begin: str, kind: str, encoding: str) -> None:
    """Without a name that tells, what follows the first bracket does."""
    path = tmp_path / "pairs.txt"
    path.write_bytes(begin.encode(encoding))
    with open_table(path, known={"prompt", "chosen", "rejected"}.__contains__) as table:
        assert table.notes[0].startswith(kind)
        assert any(isinstance(row, dict) and len(row) == 3 for _, row in table.rows)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    """Nobody knows which of them is meant; names that differ in case are two names."""
    path = tmp_path / "pairs.parquet"
    cells = [["Hi"], ["Hello!"], ["What."], ["Hm."]]
    pq.write_table(pa.table(cells, names=["prompt", "chosen", "rejected", "rejected"]), path)
    with pytest.raises(PreferencesError, match=r"more than one column named 'rejected'\. Rename or drop"):
        read_preferences(path)
    pq.write_table(pa.table(cells, names=["prompt", "chosen", "rejected", "Note"]), path)
    assert len(read_preferences(path).pairs) == 1


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.array([b"\xff\xfe"]).view(pa.string()), "utf-8"),
        (pa.array([2**62]).view(pa.timestamp("us")), "year|range|large"),
        (pa.array([0], pa.timestamp("us", tz="Mars/Olympus")), "Mars"),
    ],
)
def test_cells_that_python_has_no_value_for(tmp_path: Path, column: pa.Array, told: str) -> None:
    """Text that is no UTF-8 and a time beyond all years are damage, told in one line; so is a strange time zone."""
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"prompt": ["Hi"], "chosen": ["Yes."], "rejected": ["No."], "note": column}), path)
    with pytest.raises(
        PreferencesError, match=rf"The Parquet file is damaged \(.*({told}).*\)\. Write it again"
    ) as raised:
        read_preferences(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "written", ["{", "[]", '{"info": 7}', '{"info": {"features": [1]}}', '{"info": {"features": {"a": 1}}}', "[" * 9**5]
)
def test_metadata_of_no_use_is_passed_over(tmp_path: Path, written: str) -> None:
    """What `datasets` did not write names no classes."""
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS).replace_schema_metadata({"huggingface": written}), path)
    assert len(read_preferences(path).pairs) == 3


def sound(compression: str) -> bytes:
    """Write a small Parquet file with turns, a time and names of classes."""
    turns = [{"role": "assistant", "content": "yes"}]
    row = {"prompt": "ask", "chosen": turns, "rejected": "no", "when": datetime(2024, 1, 1, tzinfo=UTC), "winner": 1}
    metadata = {"huggingface": json.dumps({"info": {"features": {"winner": {"names": ["a", "b"]}}}})}
    file = io.BytesIO()
    table = pa.Table.from_pylist([row] * 5).replace_schema_metadata(metadata)
    pq.write_table(table, file, compression=compression, store_schema=compression == "snappy")
    return file.getvalue()


SOUND = [sound("snappy"), sound("none")]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(SOUND), st.lists(st.tuples(st.integers(0, 2**12), st.integers(0, 255)), max_size=4))
def test_a_damaged_parquet_file_is_told(tmp_path: Path, content: bytes, hits: list[tuple[int, int]]) -> None:
    """Whatever bytes are changed, there are pairs or one line that says what is wrong."""
    damaged = bytearray(content)
    for at, byte in hits:
        damaged[at % len(damaged)] = byte
    path = tmp_path / "pairs.parquet"
    path.write_bytes(damaged)
    with contextlib.suppress(PreferencesError):
        assert read_preferences(path).pairs


def test_images_are_refused(tmp_path: Path) -> None:
    """A file of image preferences is refused, and no address in it is asked for."""
    path = tmp_path / "pairs.jsonl"
    row = {"prompt": "What is it?", "images": ["http://127.0.0.1:9/x.png"], "chosen": "A cat.", "rejected": "A dog."}
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(PreferencesError, match="'images' holds an image or other media"):
        read_preferences(path)


def test_class_labels_are_read_by_name(tmp_path: Path) -> None:
    """`datasets` stores classes as numbers; which of them stands for the first answer is in their names."""
    path = tmp_path / "ab.parquet"
    row = {"prompt": "Hi", "response_a": "What.", "response_b": "Hello!", "winner": 1}
    features = {"winner": {"names": ["tie", "b", "a"], "_type": "ClassLabel"}, "prompt": {"_type": "Value"}}
    written = json.dumps({"info": {"features": features}})
    pq.write_table(pa.Table.from_pylist([row]).replace_schema_metadata({"huggingface": written}), path)
    assert texts(read_preferences(path)) == [("Hi", "Hello!", "What.")]
