from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from dpo_hub.errors import PreferencesError
from dpo_hub.preferences import PreferencePair, Preferences, read_preferences, text_of
from dpo_hub.preferences.repair import Repair, repair


def pair(row: int, prompt: str, chosen: str, rejected: str) -> PreferencePair:
    replies = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
    return PreferencePair([{"role": "user", "content": prompt}], *replies, row)


GOOD = pair(2, "Where?", "On its way!", "No idea.")


def repaired(pairs: list[PreferencePair], path: Path) -> tuple[list[tuple[str, ...]], list[list[str]], Repair]:
    """Return the texts and the rows of the list of changes that repairing *pairs* gives."""
    done = repair(Preferences("file.csv", "layout", pairs), path)
    with done.changes.open(encoding="utf-8-sig", newline="") as file:
        changes = list(csv.reader(file))
    assert changes.pop(0) == ["row", "what", "detail"]
    parts = [(pair.prompt, pair.chosen, pair.rejected) for pair in read_preferences(path).pairs]
    return [tuple(map(text_of, each)) for each in parts], changes, done


@pytest.mark.parametrize(
    ("pairs", "what", "detail"),
    [
        ([pair(3, "Where?", "On its way!", "No idea.")], "dropped: a repeat", "the same as row 2"),
        ([pair(3, "When?", "NOW", "now ")], "dropped: identical replies", "but for capitals"),
        ([pair(3, "When?", "\0", "Now.")], "dropped: nothing left", "a part is empty"),
    ],
)
def test_pairs_that_go(tmp_path: Path, pairs: list[PreferencePair], what: str, detail: str) -> None:
    """A pair from which nothing can be learnt goes, the first of equals stays, and the list says why."""
    texts, changes, done = repaired([GOOD, *pairs], tmp_path / "out.csv")
    assert texts == [("Where?", "On its way!", "No idea.")]
    assert changes[-1][:2] == ["3", what]
    assert changes[-1][2].startswith(detail)
    assert done.counts[what] == 1


def test_contradictions_go_on_both_sides(tmp_path: Path) -> None:
    """Of pairs labelled both ways none stays, for which is right cannot be known."""
    pairs = [GOOD, pair(3, "When?", "Now.", "Later."), pair(4, "when?", "LATER.", "Now.")]
    texts, changes, _ = repaired(pairs, tmp_path / "out.csv")
    assert len(texts) == 1
    assert [change[:2] for change in changes] == [
        ["3", "dropped: labelled both ways"],
        ["4", "dropped: labelled both ways"],
    ]


@pytest.mark.parametrize(
    ("dirty", "clean", "what"),
    [
        ("Use hf_" + "a" * 34 + " now", "Use [secret] now", "secret masked"),
        ("Ask jane@shop.org.", "Ask [e-mail].", "e-mail address masked"),
        ("a\0b\tc", "ab\tc", "control characters removed"),
        (" Now. \n", "Now.", "white space trimmed"),
    ],
)
def test_texts_are_cleaned(tmp_path: Path, dirty: str, clean: str, what: str) -> None:
    """Secrets are masked and noise is removed, and the list says where, without the secret."""
    texts, changes, _ = repaired([GOOD, pair(3, "When?", dirty, "Later.")], tmp_path / "out.jsonl")
    assert texts[1] == ("When?", clean, "Later.")
    assert changes == [["3", what, "chosen"]]


def test_calls_of_tools_are_cleaned_as_well(tmp_path: Path) -> None:
    """A secret among a call's arguments is masked, whatever is around it."""
    call = {"function": {"name": "ask", "arguments": {"key": "sk-" + "a1" * 20, "times": 2}}}
    calling = PreferencePair(
        GOOD.prompt, [{"role": "assistant", "content": "", "tool_calls": [call]}], GOOD.rejected, 3
    )
    repaired([calling], tmp_path / "out.jsonl")
    (mended,) = read_preferences(tmp_path / "out.jsonl").pairs
    assert mended.chosen[0]["tool_calls"][0]["function"]["arguments"] == {"key": "[secret]", "times": 2}


def test_nothing_to_change(tmp_path: Path) -> None:
    """Clean pairs are written as they are, and it says so; swapped ones are not put right."""
    texts, changes, done = repaired([GOOD], tmp_path / "out.parquet")
    assert (texts, changes) == ([("Where?", "On its way!", "No idea.")], [])
    assert done.sentence() == f"Wrote 1 pair to {tmp_path / 'out.parquet'}. Nothing had to be changed."


def test_rows_that_the_reader_left_out_are_listed(tmp_path: Path) -> None:
    """The list has each of them with its reason, and a reason cannot run as a formula."""
    source = Preferences("file.csv", "layout", [GOOD], {"no chosen": [7, 9], "=1": [8]})
    done = repair(source, tmp_path / "out.csv")
    assert dict(done.counts) == {"left out: no chosen": 2, "left out: =1": 1}
    assert "left out: no chosen: 2" in done.sentence()
    assert "7,left out: no chosen" in done.changes.read_text(encoding="utf-8-sig")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A file that is there stays as it is, the source among them."""
    for name in ("out.csv", "out-changes.csv"):
        (tmp_path / name).write_text("mine", encoding="utf-8")
        with pytest.raises(PreferencesError, match="already exists"):
            repair(Preferences("out.csv", "layout", [GOOD]), tmp_path / "out.csv")
        assert (tmp_path / name).read_text(encoding="utf-8") == "mine"
        (tmp_path / name).unlink()


def test_where_no_pair_is_left_nothing_is_written(tmp_path: Path) -> None:
    """An empty file would only fail later."""
    with pytest.raises(PreferencesError, match="No pair is left"):
        repair(Preferences("file.csv", "layout", [pair(2, "Hi", "a", "A")]), tmp_path / "out.csv")
    assert not list(tmp_path.glob("*out*"))


NOT_THE_SAME = [("-5", "5"), ("2*(3+4)", "2*3+4"), ("if x:\n  y", "if x:\ny"), ("Yes.", "Yes")]


@pytest.mark.parametrize(("chosen", "rejected"), NOT_THE_SAME)
def test_pairs_that_differ_in_a_sign_stay(tmp_path: Path, chosen: str, rejected: str) -> None:
    """Punctuation and indentation may be the very thing that is preferred."""
    texts, _, _ = repaired([GOOD, pair(3, "How?", chosen, rejected)], tmp_path / "out.csv")
    assert texts[1:] == [("How?", chosen, rejected)]


def test_opposite_choices_under_other_system_messages_stay(tmp_path: Path) -> None:
    """What is right in one role may be wrong in another."""
    formal, casual = pair(2, "Hi", "Good day.", "Yo."), pair(3, "Hi", "Yo.", "Good day.")
    pairs = [
        replace(made, prompt=[{"role": "system", "content": told}, *made.prompt])
        for told, made in (("Be formal.", formal), ("Be casual.", casual))
    ]
    texts, changes, _ = repaired(pairs, tmp_path / "out.jsonl")
    assert len(texts) == 2
    assert changes == []
