from __future__ import annotations

import contextlib
import csv
import io

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dpo_hub.errors import PreferencesError
from dpo_hub.preferences.files import delimited
from dpo_hub.preferences.files.delimited import Delimited, read_delimited
from dpo_hub.preferences.files.dialect import Dialect

NAMES = ["prompt", "chosen", "rejected"]
HEADER = "prompt,chosen,rejected\n"
Rows = list[tuple[int, list[str] | str]]


def read(text: str, **options: object) -> tuple[Delimited, Rows]:
    """Read *text*; a row is its cells, or why it could not be read."""
    table = read_delimited(io.StringIO(text, newline=""), known=NAMES.__contains__, **options)  # type: ignore[arg-type]
    return table, [(number, row if isinstance(row, str) else list(row.values())) for number, row in table.rows]


def rows_of(text: str) -> Rows:
    return read(text)[1]


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ('"a\nb","c\r\nd",e\n', [(2, ["a\nb", "c\r\nd", "e"])]),
        ('"say ""hi""",b,c\n', [(2, ['say "hi"', "b", "c"])]),
        ('5" screen,b,c\nd,e,f\n', [(2, ['5" screen', "b", "c"]), (3, ["d", "e", "f"])]),
        ('"never,closes,it\nd,e,f\n', [(2, ['"never', "closes", "it"]), (3, ["d", "e", "f"])]),
        ('"never,closes,it\n"d\nd",e,f\n', [(2, ['"never', "closes", "it"]), (3, ["d\nd", "e", "f"])]),
        ('"abc" def,"b",c\nd,e,f\n', [(2, ['"abc" def', "b", "c"]), (3, ["d", "e", "f"])]),
        ('"he said "hi" to\nme","b","c"\nd,e,f\n', [(2, ['he said "hi" to\nme', "b", "c"]), (3, ["d", "e", "f"])]),
        ('"a, b" c,d,e\nf,g,h\n', [(2, ["a, b c", "d", "e"]), (3, ["f", "g", "h"])]),
        ("a,b,c\r\nd,e,f\rg,h,i\n", [(2, ["a", "b", "c"]), (3, ["d", "e", "f"]), (4, ["g", "h", "i"])]),
        ("a,b,c\n\n\r\nd,e,f", [(2, ["a", "b", "c"]), (5, ["d", "e", "f"])]),
        (",,\n", [(2, ["", "", ""])]),
        ("a,b\nd,e,f\n", [(2, ["a", "b"]), (3, ["d", "e", "f"])]),
        ("a,b,c,,\n", [(2, ["a", "b", "c"])]),
        ("a,b,c,d\ne,f,g\n", [(2, delimited.LONG), (3, ["e", "f", "g"])]),
        ("a\0b,c,d\n", [(2, ["a\0b", "c", "d"])]),
        ('5" x,"say "hi" to\nme",c\n', [(2, ['5" x', 'say "hi" to\nme', "c"])]),
        ('a,b,c\nd,e,"cut sho', [(2, ["a", "b", "c"]), (3, delimited.CUT_SHORT)]),
        ("a,b,c\nTotal: 1 row\n", [(2, ["a", "b", "c"]), (3, ["Total: 1 row"])]),
    ],
)
def test_rows_as_they_are_found(body: str, rows: Rows) -> None:
    """What can be read is read, with the number that a spreadsheet shows; the rest is told."""
    assert rows_of(HEADER + body) == rows


def test_a_broken_row_keeps_to_itself() -> None:
    """What is left of a row that cannot be read is told as such, up to the next whole row."""
    assert rows_of(HEADER + 'a,b,c\n"x, y" z, v",w\nu","b"\nd,"e\ne",f\n') == [
        (2, ["a", "b", "c"]),
        (3, delimited.QUOTES),
        (4, delimited.REMAINS),
        (5, ["d", "e\ne", "f"]),
    ]


def test_half_a_cell_is_not_taken_for_a_whole_one() -> None:
    """A stray quote before a delimiter ends a cell early; neither half of the row passes for a row."""
    rows = rows_of(HEADER + '"x", y\nz","b","c"\nd,e,f\n')
    assert rows == [(2, ["x", " y"]), (3, delimited.QUOTES), (4, ["d", "e", "f"])]


def test_rows_that_a_stray_quote_holds_together_come_apart() -> None:
    """Lines that are whole rows each are not one row of the wrong width."""
    assert rows_of(HEADER + '"a,b,c\nd,e,5"\nf,g,h\n') == [
        (2, ['"a', "b", "c"]),
        (3, ["d", "e", '5"']),
        (4, ["f", "g", "h"]),
    ]


@pytest.mark.parametrize("row", ['"a\nb\nc",d\n', '"a,b\nb,c\nc",d,e,f\n'])
def test_a_whole_row_of_the_wrong_width_is_not_shredded(row: str) -> None:
    """Many lines in a quoted cell are one row, even where the row is short or long."""
    assert len(rows_of(HEADER + row + "d,e,f\n")) == 2


@pytest.mark.parametrize(
    ("text", "header_row", "skipped"),
    [
        (HEADER, 1, []),
        ("Exported on 3 May, by me\n\n" + HEADER, 3, [1]),
        ("sep=,\r\n" + HEADER, 2, [1]),
        ("\ufeff" + HEADER, 1, []),
        (" prompt ,\tchosen,rejected\n", 1, []),
        ('"prompt",\'x\',"chosen","rejected"\n', 1, []),
    ],
)
def test_the_header_is_found(text: str, header_row: int, skipped: list[int]) -> None:
    """Known names are found below a preamble and a byte order mark, stripped of white space."""
    table, _ = read(text + "a,b,c\n")
    assert (table.header_row, table.skipped) == (header_row, skipped)
    assert set(NAMES) <= set(table.columns)


def test_columns_without_a_name_or_with_one_used_before() -> None:
    """No cell is lost to a column that has no name, or another's."""
    table, rows = read("prompt,,chosen,rejected,chosen\na,b,c,d,e\n")
    assert table.columns == ["prompt", "column 2", "chosen", "rejected", "chosen (column 5)"]
    assert rows == [(2, ["a", "b", "c", "d", "e"])]


def test_names_that_nobody_knows() -> None:
    """A first row of short names above rows of another kind is a header."""
    table, rows = read("Frage;Gut;Schlecht\nWas ist das?;Ein Hund, oder?;Nichts.\n")
    assert (table.columns, table.header_row, rows[0][0]) == (["Frage", "Gut", "Schlecht"], 1, 2)


def test_no_header() -> None:
    """Without names, columns are numbered and rows start with the first."""
    table, rows = read("What is it?;A dog, I think.;No.\nAnd that, there?;A cat.;No!\n")
    assert (table.columns, table.header_row) == (["column 1", "column 2", "column 3"], 0)
    assert rows[0] == (1, ["What is it?", "A dog, I think.", "No."])


def test_the_dialect_and_the_header_may_be_told() -> None:
    """What the caller knows is not guessed."""
    table, rows = read("a|b\nc|d;e\n", dialect=Dialect(";"), header=lambda cells: "e" in cells)
    assert (table.columns, table.header_row, table.skipped, rows) == (["c|d", "e"], 2, [1], [])


@pytest.mark.parametrize(
    ("text", "description", "row"),
    [
        ('prompt;chosen;rejected\n"a;b";"c,d";e\n', "semicolons", ["a;b", "c,d", "e"]),
        ("sep=:\nprompt:chosen:rejected\na:b:c\n", "':'", ["a", "b", "c"]),
        (
            HEADER + '"a \\"b\\", c","\\\\d\\n",e\n',
            "commas, quotes escaped with backslashes",
            ['a "b", c', "\\d\\n", "e"],
        ),
        ("'prompt','chosen','rejected'\n'a, b','it''s',d\n", "commas, single quotes", ["a, b", "it's", "d"]),
        ('prompt, chosen, rejected\n"a, b", "c", d\n', "commas", ["a, b", "c", "d"]),
        ("prompt\tchosen\trejected\na, b\tC:\\new\td\n", "tabs", ["a, b", "C:\\new", "d"]),
    ],
)
def test_dialects_are_guessed_and_described(text: str, description: str, row: list[str]) -> None:
    """The delimiter, the quotes and how they are escaped are seen from the text."""
    table, rows = read(text)
    assert (table.dialect.description, rows[0][1]) == (description, row)


def test_a_cell_over_the_limit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quote that never closes, or a cell beyond all measure, costs one row; the limit is only ever raised."""
    monkeypatch.setattr(delimited, "MAX_CELL_CHARS", 1 << 18)
    monkeypatch.setattr(delimited, "MAX_ROW_CHARS", 1 << 19)
    before = csv.field_size_limit(1 << 18)
    try:
        filler = "g,h,i\n" * 60_000
        rows = rows_of(HEADER + f'd,"{"e" * (1 << 19)}",f\ng,h,i\n"a,b,c\n' + filler)
        assert rows[:3] == [(2, delimited.TOO_LONG), (3, ["g", "h", "i"]), (4, ['"a', "b", "c"])]
        assert len(rows) == 60_003
        assert csv.field_size_limit() == 1 << 18
    finally:
        csv.field_size_limit(max(before, delimited.MAX_CELL_CHARS))


@pytest.mark.parametrize("line", ['a",""",b\n', '"\n', '"""\n', ',"\n', '"a"b,"\n', '\\"",""\n', '"' * 7 + ",\n"])
def test_no_text_takes_for_ever(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """However quotes are arranged, no line is taken up more often than the budget for reading again allows."""
    monkeypatch.setattr(delimited, "MAX_REREAD_CHARS", 1 << 22)
    taken = []
    take = delimited._Reader.__iter__
    monkeypatch.setattr(delimited._Reader, "__iter__", lambda reader: (taken.append(1) or one for one in take(reader)))
    with contextlib.suppress(PreferencesError):
        rows_of(HEADER + line * 20_000)
    assert 0 < len(taken) <= 20_001 + (1 << 22) // delimited.LINE_COST


def test_reading_that_would_take_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence says where, why and what to do."""
    monkeypatch.setattr(delimited, "MAX_REREAD_CHARS", 1 << 20)
    with pytest.raises(PreferencesError, match=r"Row \d: .* would take too long\. Save the table again"):
        rows_of(HEADER + 'a",""",b\n' * 20_000)


def test_many_broken_rows_are_given_up_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are broken one by one, each soon seen to be, cost time as well as long ones do."""
    monkeypatch.setattr(delimited, "MAX_REREAD_CHARS", 2000 * delimited.ROW_COST)
    assert len(rows_of(HEADER + '"a,b,c\n' * 1000)) == 1000
    with pytest.raises(PreferencesError, match="too long"):
        rows_of(HEADER + '"a,b,c\n' * 3000)


def written(table: list[list[str]], dialect: Dialect, end: str, quoting: int) -> str:
    """Write *table* under the header, as csv.writer does."""
    file = io.StringIO(newline="")
    writer = csv.writer(
        file,
        delimiter=dialect.delimiter,
        doublequote=not dialect.backslash,
        escapechar="\\" if dialect.backslash else None,
        lineterminator=end,
        quoting=quoting,  # type: ignore[arg-type]
    )
    writer.writerows([NAMES, *table])
    return file.getvalue()


cells = st.text(st.sampled_from("ab é\"'\\,;\t|\r\n\0中\u2028"), max_size=12) | st.text(max_size=5)
tables = st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=6)
dialects = st.builds(Dialect, st.sampled_from(",;\t|"), backslash=st.booleans())
ends = st.sampled_from(["\n", "\r\n", "\r"])
quotings = st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
quick = settings(max_examples=150, deadline=None)


def fair(table: list[list[str]], end: str, quoting: int) -> None:
    """Leave out what csv.writer itself does not quote: the line breaks that it does not end lines with."""
    others = set("\r\n") - set(end)
    assume(quoting == csv.QUOTE_ALL or not any(others & set(cell) for row in table for cell in row))


@quick
@given(tables, dialects, ends, quotings)
def test_what_was_written_is_read(table: list[list[str]], dialect: Dialect, end: str, quoting: int) -> None:
    """Every table comes back cell for cell, where the dialect is told."""
    fair(table, end, quoting)
    found = read(written(table, dialect, end, quoting), dialect=dialect)[1]
    assert found == list(enumerate(table, 2))


@quick
@given(tables, dialects, ends, quotings)
def test_what_was_written_is_read_blind(table: list[list[str]], dialect: Dialect, end: str, quoting: int) -> None:
    """The dialect is seen from the text: always, or for backslashes where the text holds an escaped quote."""
    fair(table, end, quoting)
    assume(not dialect.backslash or any('"' in cell for row in table for cell in row))
    guessed, found = read(written(table, dialect, end, quoting))
    assert guessed.dialect == dialect
    assert found == list(enumerate(table, 2))


@quick
@given(st.text(st.sampled_from("abcé \".?'\\,;\t|\r\n\0=")) | st.text(), st.sampled_from(["", HEADER, "a;b\n"]))
def test_any_text_at_all(text: str, before: str) -> None:
    """Whatever the text, rows come or reasons do, in order."""
    numbers = [number for number, _ in rows_of(before + text)]
    assert numbers == sorted(set(numbers))


prose = st.text(st.sampled_from("ab ,;'.\n"), max_size=20).map("x{}y".format)


@quick
@given(st.lists(st.lists(prose, min_size=3, max_size=3), min_size=3, max_size=8), st.data())
def test_one_stray_quote_costs_one_row(table: list[list[str]], data: st.DataObject) -> None:
    """The other rows come back as they were, wherever no line of the damaged one looks like a row."""
    lines = [",".join(map('"{}"'.format, row)) + "\n" for row in table]
    hit = data.draw(st.integers(0, len(table) - 1))
    at = data.draw(st.integers(0, len(lines[hit]) - 1))
    damaged = lines[hit][:at] + '"' + lines[hit][at:]
    assume(not any(line.count(",") >= 2 for line in damaged.split("\n")[:-1]) or "\n" not in damaged[:-1])
    found = [row for _, row in rows_of(HEADER + "".join([*lines[:hit], damaged, *lines[hit + 1 :]]))]
    assert found[:hit] == table[:hit]
    assert found[len(found) - len(table) + hit + 1 :] == table[hit + 1 :]
