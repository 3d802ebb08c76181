from __future__ import annotations

import csv
import errno
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpo_hub.errors import DiskFullError, PreferencesError
from dpo_hub.preferences import PreferencePair, read_preferences
from dpo_hub.preferences.export import atomic_write, escape_formula, unescape_formula, write_preferences
from dpo_hub.preferences.pairs import Messages

SUFFIXES = (".csv", ".jsonl", ".parquet")


def said(role: str, text: str, **further: Any) -> dict[str, Any]:
    return {"role": role, "content": text, **further}


PLAIN = PreferencePair([said("user", "Where?")], [said("assistant", "On its way!")], [said("assistant", "No idea.")], 2)
CHAT = PreferencePair(
    [said("system", "Be kind."), said("user", "Hi"), said("assistant", "Hello!"), said("user", " Where?\n")],
    [said("assistant", "=1+1")],
    [said("assistant", '[{"role": "user", "content": "No."}]')],
    3,
    tools=[{"type": "function", "function": {"name": "find", "parameters": {}}}],
)
CALL = PreferencePair(
    [said("user", "Where?")],
    [said("assistant", "", tool_calls=[{"type": "function", "function": {"name": "find", "arguments": {"order": 1}}}])],
    [said("assistant", "No idea.")],
    4,
    chat_template_kwargs={"enable_thinking": False},
)


def again(pairs: list[PreferencePair], path: Path) -> list[dict[str, Any]]:
    """Write *pairs* and read them."""
    write_preferences(pairs, path)
    return [pair.messages for pair in read_preferences(path).pairs]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pairs_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    """Chats, outer white space, formulas, text that looks like messages, and tools survive each kind of file."""
    assert again([PLAIN, CHAT], tmp_path / f"out{suffix}") == [PLAIN.messages, CHAT.messages]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_tool_calls_come_back(tmp_path: Path, suffix: str) -> None:
    """So do turns that call a tool, and arguments of the chat template."""
    assert again([PLAIN, CALL], tmp_path / f"out{suffix}") == [PLAIN.messages, CALL.messages]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.sampled_from(
    ["'=1", "-", "Human: a\n\nAssistant: b", "<s>[INST] a [/INST]", "a<|im_end|>", '{"role": "user"}', "[]", "nan", "'"]
)


def messages(role: str, *before: str) -> st.SearchStrategy[Messages]:
    """Return messages that end with *role*, and begin with any of the roles *before*."""
    last = TEXT.filter(str.strip).map(lambda text: said(role, text))
    return st.builds(
        lambda first, last: [*first, last],
        st.lists(st.builds(said, st.sampled_from(before), TEXT), max_size=2) if before else st.just([]),
        last,
    )


PAIRS = st.builds(
    PreferencePair, messages("user", "user", "assistant"), messages("assistant"), messages("assistant"), st.just(2)
).filter(lambda pair: pair.chosen != pair.rejected)


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PAIRS, min_size=1, max_size=4), st.sampled_from(SUFFIXES))
def test_any_text_comes_back(tmp_path: Path, pairs: list[PreferencePair], suffix: str) -> None:
    """Whatever the texts are, they are read as they were written."""
    assert again(pairs, tmp_path / f"out{suffix}") == [pair.messages for pair in pairs]


@settings(database=None)
@given(st.text())
def test_guards_come_off(cell: str) -> None:
    """A guard is taken off exactly where one was put, and no guarded cell is run."""
    assert unescape_formula(escape_formula(cell)) == cell
    assert escape_formula(cell)[:1] not in tuple("=+-@\t\r")


def test_csv_is_for_spreadsheets(tmp_path: Path) -> None:
    """Plain parts stand as text, in the encoding that Excel sees by the mark, and no formula can run."""
    formula = PreferencePair([said("user", "é?")], [said("assistant", "=HYPERLINK(1)")], [said("assistant", "'+1")], 2)
    write_preferences([formula], tmp_path / "out.csv")
    raw = (tmp_path / "out.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfprompt,chosen,rejected\r\n")
    rows = list(csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline="")))
    assert rows[1:] == [["é?", "'=HYPERLINK(1)", "''+1"]]


def test_json_lines_are_as_trl_takes_them(tmp_path: Path) -> None:
    """A line is a pair of message lists, and nothing else."""
    write_preferences([PLAIN], tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8")) == PLAIN.messages


def test_parquet_is_as_trl_takes_it(tmp_path: Path) -> None:
    """The columns are lists of role and content; tools are JSON, which TRL parses."""
    write_preferences([PLAIN, CHAT], tmp_path / "out.parquet")
    first, second = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert first == PLAIN.messages | {"tools": None}
    assert json.loads(second["tools"]) == CHAT.tools


def test_parquet_refuses_what_it_would_change(tmp_path: Path) -> None:
    """Arrow gives each call the arguments of all others, so such pairs go into JSON Lines; nothing is left behind."""
    with pytest.raises(PreferencesError, match=r"row 4.*End the name in \.jsonl"):
        write_preferences([PLAIN, CALL], tmp_path / "out.parquet")
    assert not list(tmp_path.glob("*out*"))


def test_other_names_are_refused(tmp_path: Path) -> None:
    """A name that ends otherwise, or a folder that is not there, is told with what to do."""
    with pytest.raises(PreferencesError, match=r"\.csv, \.jsonl or \.parquet"):
        write_preferences([PLAIN], tmp_path / "out.xlsx")
    with pytest.raises(PreferencesError, match=r"There is no folder .*absent"):
        write_preferences([PLAIN], tmp_path / "absent" / "out.csv")


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    """What was there stays until all is written, and a full disk is told as one."""
    path = tmp_path / "out.csv"
    path.write_text("old", encoding="utf-8")
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DiskFullError), atomic_write(path):
        raise full
    assert path.read_text(encoding="utf-8") == "old"
    assert [each.name for each in tmp_path.glob("*out*")] == ["out.csv"]
