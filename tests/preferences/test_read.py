from __future__ import annotations

import csv
import gzip
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpo_hub.errors import PreferencesError
from dpo_hub.preferences import files, read_preferences
from dpo_hub.preferences.files import plain
from dpo_hub.preferences.pairs import Preferences

COLUMNS = ["prompt", "chosen", "rejected"]
SMALL = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SMALL
@given(st.binary(max_size=300) | st.binary(max_size=200).map(gzip.compress))
def test_any_bytes_give_pairs_or_one_clear_error(tmp_path: Path, data: bytes) -> None:
    """Whatever is in a file, it is read or refused, and the refusal names it."""
    path = tmp_path / "any"
    path.write_bytes(data)
    assert read_or_refused(path)


def read_or_refused(path: Path) -> bool:
    """Whether *path* gives pairs, or one complaint that names it."""
    try:
        preferences = read_preferences(path)
    except PreferencesError as error:
        return str(error).startswith(f"{path}: ") and "\n" not in str(error)
    return preferences.rows >= len(preferences.pairs) > 0


PIECES = st.sampled_from(
    [b"prompt,chosen,rejected\n", b'{"prompt": "a", "chosen": "b", "rejected": ', b'"', b",", b"\n", b"\r", b"\0", b"a",
     b"\xff\xfe", b"\x1f\x8b", b"PAR1", b"[", b"]", b"{", b"}", b"\\", b"\xe9", b"\xc3\xa9",
     b"response_a,response_b,winner\n"]
)  # fmt: skip


@SMALL
@given(st.lists(PIECES, max_size=30).map(b"".join))
def test_bytes_that_look_like_files_give_pairs_or_one_clear_error(tmp_path: Path, data: bytes) -> None:
    """The same of bytes that begin like something that is known."""
    path = tmp_path / "any"
    path.write_bytes(data)
    assert read_or_refused(path)


CELLS = st.text(st.sampled_from("ab \"',;\n\r\t[{<>=-é\u2028\u00a0\0"), max_size=6) | st.text(max_size=8)
ROWS = st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=30)


def told(preferences: Preferences) -> object:
    return list(preferences.pairs), preferences.left_out, preferences.rows, preferences.columns


def read_both_ways(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, object]:
    with monkeypatch.context() as patch:
        found = []
        for least in (0, 2**40):
            patch.setattr(files, "LEAST_BYTES", least)
            try:
                found.append(told(read_preferences(path)))
            except PreferencesError as error:
                found.append(str(error))
        quick, careful = found
    return quick, careful


@SMALL
@given(ROWS, st.sampled_from([64, 300, 2**20]), st.booleans())
def test_a_plain_table_reads_the_same_by_both_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[list[str]], block: int, everything: bool
) -> None:
    """Arrow's reader gives the pairs, reasons and row numbers that the careful one gives, or leaves it to that one."""
    text = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if everything else csv.QUOTE_MINIMAL
    csv.writer(text, lineterminator="\n" if everything else "\r\n", quoting=quoting).writerows([COLUMNS, *rows])
    path = tmp_path / "pairs.csv"
    path.write_bytes(text.getvalue().encode("utf-8", "replace"))
    monkeypatch.setattr(plain, "BLOCK_BYTES", block)
    quick, careful = read_both_ways(path, monkeypatch)
    assert quick == careful


@SMALL
@given(
    rows=st.lists(
        st.fixed_dictionaries({}, optional=dict.fromkeys([*COLUMNS, "id"], CELLS | st.none() | st.integers()))
    ),
    block=st.sampled_from([64, 2**20]),
    ascii_only=st.booleans(),
)
def test_plain_json_lines_read_the_same_by_both_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, object]], block: int, ascii_only: bool
) -> None:
    """The same of JSON Lines."""
    path = tmp_path / "pairs.jsonl"
    first = dict(zip(COLUMNS, "abc", strict=True))
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in (first, first, *rows)]
    path.write_bytes("\n".join(lines).encode("utf-8", "replace"))
    monkeypatch.setattr(plain, "BLOCK_BYTES", block)
    quick, careful = read_both_ways(path, monkeypatch)
    assert quick == careful


def test_a_plain_file_is_read_by_arrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick way is taken where it can be: the careful reader goes no further than the sample."""
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *([f"ask\n{n}", '"good", said I', "[bad"] for n in range(5000))])
    monkeypatch.setattr(files, "LEAST_BYTES", 0)
    monkeypatch.setattr("dpo_hub.preferences.read._read_carefully", lambda *_: pytest.fail("the careful way was taken"))
    preferences = read_preferences(path)
    assert [pair.row for pair in preferences.pairs] == list(range(2, 5002))
    assert preferences.pairs[4999].messages["prompt"] == [{"role": "user", "content": "ask\n4999"}]


@pytest.mark.parametrize(
    "spoilt",
    ['a,"b" c,d\n', "a,b\n", "a,b,c,d\n", "\n", 'a,b,"c\n', 'a 5" b,c,d\n', "a,b,\xff\n"],
    ids=["text after a quote", "short", "long", "blank", "open quote", "inner quote", "no UTF-8"],
)
def test_what_is_not_plain_is_left_to_the_careful_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    """One row late in the file that is not as it should be is enough, and nothing is read twice."""
    path = tmp_path / "pairs.csv"
    good = "".join(f"ask {n},good,bad\n" for n in range(3000))
    path.write_bytes(f"prompt,chosen,rejected\n{good}{spoilt}{good}".encode("latin-1"))
    monkeypatch.setattr(files, "LEAST_BYTES", 0)
    taken = []
    careful = read_preferences.__globals__["_read_carefully"]
    monkeypatch.setattr("dpo_hub.preferences.read._read_carefully", lambda *given: taken.append(1) or careful(*given))
    preferences = read_preferences(path)
    assert taken == [1]
    assert 6000 <= len(preferences.pairs) <= 6001


def test_many_reasons_are_not_listed_one_by_one(tmp_path: Path) -> None:
    """A column of words that are no verdicts does not flood the report."""
    path = tmp_path / "ab.csv"
    path.write_text("prompt,response_a,response_b,winner\nq,x,y,a\n" + "".join(f"q,x,y,w{n}z\n" for n in range(300)))
    preferences = read_preferences(path)
    assert len(preferences.left_out) <= 51
    assert sum(map(len, preferences.left_out.values())) == 300
    assert len(preferences.sentence()) < 800


def test_rows_without_a_name(tmp_path: Path) -> None:
    """Empty objects are no rows."""
    path = tmp_path / "empty.jsonl"
    path.write_text("{}\n{}\n")
    with pytest.raises(PreferencesError, match="no row that can be read"):
        read_preferences(path)


@pytest.mark.parametrize("large", [False, True])
def test_a_column_that_comes_late_counts_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """Exporters leave out what is empty: a column that the first rows lack is read all the same."""
    monkeypatch.setattr(files, "LEAST_BYTES", 0 if large else 2**40)
    rows = [{"prompt": f"ask {n}", "chosen": "good", "rejected": "bad"} for n in range(300)]
    rows[250] |= {"system": "Be kind.", "note": "x"}
    rows[260] |= {"images": ["http://127.0.0.1:9/x.png"]}
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    preferences = read_preferences(path)
    assert preferences.columns["system"] == "system"
    assert [len(pair.prompt) for pair in preferences.pairs].index(2) == 250
    assert list(preferences.left_out.values()) == [[261]]


def test_a_file_is_read_by_several_threads_at_once(tmp_path: Path) -> None:
    """Whoever looks at the pairs disturbs nobody else who does."""
    path = tmp_path / "pairs.csv"
    path.write_text("prompt,chosen,rejected\n" + "".join(f"ask {n},good {n},bad\n" for n in range(20_000)))
    pairs = read_preferences(path).pairs
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(lambda _: [pair.row for pair in pairs], range(8)))
    assert all(rows == list(range(2, 20_002)) for rows in seen)
