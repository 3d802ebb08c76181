"""Preference files on a visitor's shelf, tried without Gradio."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from dpo_hub.app.handlers import columns, diagnosis, files, writing
from dpo_hub.app.handlers.files import Source
from dpo_hub.app.markup import preferences as markup
from dpo_hub.errors import PreferencesError
from dpo_hub.preferences import PreferencePair, Preferences
from dpo_hub.preferences.doctor.findings import Finding

from ..conftest import WriteCsv

HOSTILE = '<img src="x" onerror="alert(1)">'


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A visitor's empty shelf."""
    return tmp_path / "shelf"


def _pair(prompt: str, chosen: str, rejected: str, row: int = 2) -> PreferencePair:
    parts = zip(("user", "assistant", "assistant"), (prompt, chosen, rejected), strict=True)
    asked, good, bad = ([{"role": role, "content": text}] for role, text in parts)
    return PreferencePair(asked, good, bad, row)


def test_every_demo_file_can_be_read(shelf: Path) -> None:
    """Each title on the page leads to a file that reads as pairs, with nothing grave found in it."""
    for name in files.demo_files().values():
        source = files.find(shelf, name)
        sentence = files.read(source).sentence()
        assert "500 pairs, read as: one pair a row; prompt, chosen, rejected. Every row was used." in sentence
        assert all(finding.severity != "high" for finding in diagnosis.examined(source).findings)


def test_an_upload_is_kept_under_its_name_and_the_copy_removed(shelf: Path, write_csv: WriteCsv) -> None:
    """The file goes by an id, and what was left out is counted."""
    path = write_csv([("prompt", "chosen", "rejected"), ("a", "b", "c"), ("a", "", "c"), ("a", "b", "b")])
    source = files.find(shelf, files.save_upload(shelf, path))
    assert not path.exists()
    assert source.name == "pairs.csv"
    told = files.read(source).sentence()
    assert "2 rows left out (no chosen: row 3; chosen and rejected the same: row 4)" in told


def test_an_upload_that_is_gone_or_of_another_kind_is_refused(shelf: Path, tmp_path: Path) -> None:
    """The sentence says what to do, and the temporary copy goes even so."""
    with pytest.raises(PreferencesError, match="Upload it again"):
        files.save_upload(shelf, tmp_path / "gone.csv")
    program = tmp_path / "program.exe"
    program.touch()
    with pytest.raises(PreferencesError, match="files of this kind are not read"):
        files.save_upload(shelf, program)
    assert not program.exists()


def test_an_error_names_the_file_without_its_folder(shelf: Path, write_csv: WriteCsv) -> None:
    """Where an upload lies on the server is not told, nor an option of the command line."""
    source = files.find(shelf, files.save_upload(shelf, write_csv([("prompt", "chosen", "rejected")])))
    with pytest.raises(PreferencesError, match=r"^pairs\.csv: It has no row") as caught:
        files.read(source)
    assert str(shelf) not in str(caught.value)
    source = files.find(shelf, files.save_upload(shelf, write_csv([("prompt", "one", "two"), ("a", "b", "c")])))
    with pytest.raises(PreferencesError, match="Say which is which: prompt=") as caught:
        files.read(source)
    assert "--map" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "../files/0123456789abcdef",
        "/etc/passwd",
        "0123456789abcdef",
        "0123456789ABCDEF",
        "demo:../tone",
        "demo:",
        "hub:../../etc",
        "hub:/etc/passwd",
        "hub:etc",
        "hub:owner/..",
        "hub:owner/name:../x",
        "hub:owner/name\n",
        "a\0b",
        "",
    ],
)
def test_no_name_in_the_address_leads_out_of_the_shelf(name: str, shelf: Path, few_pairs: Path) -> None:
    """A path, an id of nobody's and a dataset's name that is none find nothing."""
    files.save_copy(shelf, few_pairs)
    with pytest.raises(PreferencesError):
        files.find(shelf, name)


def test_a_dataset_named_like_a_folder_here_is_refused(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the address nor what is kept beside a file opens what lies on the server."""
    (tmp_path / "owner" / "name").mkdir(parents=True)
    file = files.map_columns(shelf, "hub:owner/name", {"prompt": "a"})
    monkeypatch.chdir(tmp_path)
    for name in ("hub:owner/name", file):
        with pytest.raises(PreferencesError, match="is not a dataset's name"):
            files.find(shelf, name)


def test_another_visitors_file_is_not_found(shelf: Path, tmp_path: Path, few_pairs: Path) -> None:
    """An id counts on its own shelf only."""
    file = files.save_copy(shelf, few_pairs)
    with pytest.raises(PreferencesError, match="not here any more"):
        files.find(tmp_path / "other", file)


@pytest.mark.parametrize("name", ["../../up.csv", "/etc/up.csv", "C:\\down\\up.csv", "a/b/up.csv"])
def test_a_name_with_slashes_is_for_people_only(name: str, shelf: Path, few_pairs: Path) -> None:
    """The copy lies in a folder of its own, whatever the upload was called."""
    source = files.find(shelf, files.save_copy(shelf, few_pairs, name))
    assert source.name == "up.csv"
    assert Path(source.where).parent.parent == shelf / "files"


def test_a_datasets_name_or_address_is_taken() -> None:
    """What people copy from the Hub is understood."""
    assert files.hub_file(" owner/name ") == "hub:owner/name"
    assert files.hub_file("https://huggingface.co/datasets/owner/name/") == "hub:owner/name"


def test_a_mapping_is_kept_and_can_be_changed(shelf: Path, write_csv: WriteCsv) -> None:
    """The boxes show what was said; the file's id stays, and what it is read as changes."""
    path = write_csv([("frage", "one", "two"), ("What?", "This.", "That.")])
    file = files.save_upload(shelf, path)
    assert columns.columns_of(files.find(shelf, file)) == ["frage", "one", "two"]
    for good, bad in (("one", "two"), ("two", "one")):
        assert files.map_columns(shelf, file, columns.mapping_of(("frage", good, bad), "")) == file
        source = files.find(shelf, file)
        found = files.read(source)
        assert markup.text_of(found.pairs[0].chosen) == {"one": "This.", "two": "That."}[good]
        assert columns.mapping_shown(source, found) == (["frage", good, bad], "")


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ([("question", "chosen", "rejected"), ("q", "b", "c")], (["question", "chosen", "rejected"], "")),
        (
            [("prompt", "response_a", "response_b", "preferred"), ("q", "x", "y", "a"), ("r", "v", "w", "b")],
            (["prompt", None, None], "winner=preferred,a=response_a,b=response_b"),
        ),
        (
            [("prompt", "reply 1", "reply 2", "best"), ("q", "x", "y", "1"), ("r", "v", "w", "2")],
            ([None, None, None], ""),
        ),
    ],
)
def test_the_boxes_show_what_was_found_if_they_can_say_all_of_it(
    rows: list[tuple[str, ...]], shown: object, shelf: Path, write_csv: WriteCsv
) -> None:
    """To read it as the boxes say changes nothing then."""
    file = files.save_upload(shelf, write_csv(rows))
    source = files.find(shelf, file)
    found = files.read(source)
    boxes, others = columns.mapping_shown(source, found)
    assert (boxes, others) == shown
    files.map_columns(shelf, file, columns.mapping_of(boxes, others))
    assert files.read(files.find(shelf, file)).pairs[0] == found.pairs[0]


def test_other_parts_are_written_out() -> None:
    """What has no box of its own is written as on the command line, and may repeat a box."""
    assert columns.mapping_of(("q", None, " "), "a=x, b=y,winner=v") == {
        "prompt": "q",
        "a": "x",
        "b": "y",
        "winner": "v",
    }
    with pytest.raises(PreferencesError, match="not of the form"):
        columns.mapping_of((None, None, None), "nonsense")


def test_a_demo_file_becomes_ones_own_by_a_mapping(shelf: Path) -> None:
    """The package's file stays as it is."""
    file = files.map_columns(shelf, "demo:tone", {"chosen": "rejected", "rejected": "chosen"})
    assert files.downloadable(file, files.find(shelf, file))
    assert (
        files.read(files.find(shelf, file)).pairs[0].chosen
        == files.read(files.find(shelf, "demo:tone")).pairs[0].rejected
    )


def test_a_dataset_keeps_its_mapping(shelf: Path) -> None:
    """There is no file to copy or to download, so the dataset's name is kept."""
    file = files.map_columns(shelf, "hub:owner/name", {"prompt": "q"})
    source = files.find(shelf, file)
    assert source == Source("owner/name", "owner/name", {"prompt": "q"})
    assert not files.downloadable(file, source)


def test_paging_does_not_read_again(shelf: Path, few_pairs: Path) -> None:
    """The same file gives the same pairs until it changes."""
    file = files.save_copy(shelf, few_pairs)
    source = files.find(shelf, file)
    assert files.read(source) is files.read(files.find(shelf, file))
    with Path(source.where).open("a", encoding="utf-8") as lines:
        lines.write("a,b,c\n")
    assert len(files.read(source).pairs) == 41


def test_a_file_of_too_many_rows_is_refused(few_pairs: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for machines that many share."""
    source = files.find(shelf, files.save_copy(shelf, few_pairs))
    monkeypatch.setenv("DPO_HUB_MAX_ROWS", "39")
    with pytest.raises(PreferencesError, match=r"^few\.csv: It has more than 39 rows, the limit here"):
        files.read(source)
    monkeypatch.setenv("DPO_HUB_MAX_ROWS", "40")
    assert len(files.read(source).pairs) == 40


def test_a_shelf_takes_so_many_files(few_pairs: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused with a sentence, however it comes about."""
    monkeypatch.setenv("DPO_HUB_MAX_FILES", "1")
    files.save_copy(shelf, few_pairs)
    with pytest.raises(PreferencesError, match="You have 1 files here"):
        files.save_copy(shelf, few_pairs)
    with pytest.raises(PreferencesError, match="You have 1 files here"):
        writing.add_pair(shelf, "", "a", "b", "c")


def test_a_repair_is_a_new_file_that_says_what_changed(shelf: Path, write_csv: WriteCsv) -> None:
    """The first file stays; the second has the cleaned pairs and a note."""
    rows = [("prompt", "chosen", "rejected"), ("q", "b", "c"), ("q", "b", "c"), ("r", "to me@gmail.com", "c")]
    file = files.save_upload(shelf, write_csv(rows))
    done = files.find(shelf, diagnosis.repaired(shelf, file))
    assert done.name == "pairs-repaired.csv"
    assert done.note == "Repaired from pairs.csv. Changed: dropped: a repeat: 1; e-mail address masked: 1."
    assert len(files.read(done).pairs) == 2
    assert len(files.read(files.find(shelf, file)).pairs) == 3


def test_pairs_written_here_add_up(shelf: Path) -> None:
    """Several tabs may write at once; a file from elsewhere is not written to."""
    file = writing.add_pair(shelf, "demo:tone", "Hi?\nThere?", " Hello. ", "What.")
    threads = [threading.Thread(target=writing.add_pair, args=(shelf, file, f"{n}?", "yes", "no")) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    source = files.find(shelf, file)
    found = files.read(source)
    assert source.written
    assert len(found.pairs) == 21
    assert found.pairs[0].messages == _pair("Hi?\nThere?", "Hello.", "What.").messages
    assert writing.add_pair(shelf, files.save_copy(shelf, Path(source.where)), "q", "b", "c") != file


@pytest.mark.parametrize("texts", [("", "b", "c"), ("a", " ", "c"), ("a", "b", ""), ("a", "b", " b")])
def test_half_a_pair_is_not_written(texts: tuple[str, str, str], shelf: Path) -> None:
    """The sentence says what is missing, and no file is made."""
    with pytest.raises(PreferencesError, match=r"Write what is missing|Change one of them"):
        writing.add_pair(shelf, "", *texts)
    assert not shelf.exists()


def test_the_demo_model_drafts_two_replies() -> None:
    """They differ, for there is nothing to choose otherwise; without a prompt there are none."""
    pytest.importorskip("torch")
    with pytest.raises(PreferencesError, match="Write a prompt first"):
        writing.drafts(" ")
    first, second = writing.drafts("My name is Katja. Where is order 54198, the blue hammock?")
    assert writing.loaded()
    assert first
    assert second
    assert first != second


def test_what_is_kept_beside_a_file_may_be_older(shelf: Path, few_pairs: Path) -> None:
    """Files kept before there were notes are found."""
    file = files.save_copy(shelf, few_pairs)
    about = shelf / "files" / file / "about.json"
    about.write_text(json.dumps({"name": "old.csv", "mapping": {}}), encoding="utf-8")
    assert files.find(shelf, file).name == "old.csv"
    about.unlink()
    with pytest.raises(PreferencesError, match="not here any more"):
        files.find(shelf, file)


def test_no_markup_of_a_file_gets_through() -> None:
    """Texts, columns, notes, findings and rows are escaped."""
    pair = _pair(HOSTILE, f"good {HOSTILE}", f"bad {HOSTILE}")
    found = Preferences(HOSTILE, "x", [pair], {HOSTILE: [3]}, {"prompt": HOSTILE}, [HOSTILE], 2)
    finding = Finding("x", HOSTILE, 1, [2, 9], HOSTILE, "high")
    shown = (
        markup.reading(found, HOSTILE, HOSTILE)
        + markup.error(HOSTILE)
        + markup.pairs([pair])
        + markup.findings([finding], {2: pair}, 3)
    )
    assert "<img" not in shown
    assert shown.count("&lt;img") >= 10


def test_words_of_one_reply_only_are_marked() -> None:
    """What lies between is marked too; a text that is long is cut."""
    assert markup.marked("a big red dog", "a dog  indeed") == (
        "a <mark>big red</mark> dog",
        "a dog  <mark>indeed</mark>",
    )
    assert markup.marked("", "x") == ("", "<mark>x</mark>")
    assert " …" in markup.pairs([_pair("p", "c" * 9_000, "r")])
    assert len(markup.pairs([_pair("p", "c " * 90_000, "r")])) < 9_000


def test_the_place_among_the_pairs() -> None:
    """The last page may be short."""
    assert "Pairs 1–5 of 1,007" in markup.place(0, 1_007)
    assert "Pairs 1,006–1,007 of 1,007" in markup.place(201, 1_007)


def test_lengths_are_drawn_and_told() -> None:
    """Each side has its bars, and whoever does not see them is told the medians."""
    picture = markup.lengths([3, 5, 400], [1, 1, 2])
    assert 'role="img" aria-label="Lengths of the replies.' in picture
    assert "chosen 5 words, rejected 1 word" in picture
    assert picture.count("<rect") == 5
    assert "<title>" in picture
    assert "<svg" in markup.lengths([0], [0])
