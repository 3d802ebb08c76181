"""The first step, in a browser: a file that is not understood is explained, looked at, repaired and downloaded."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from playwright import sync_api

from dpo_hub.demo import FILES

from .conftest import Trouble

expect = sync_api.expect

HOSTILE = '<img src="x" onerror="document.title=\'taken over\'">'
OWN_FILE = re.compile(r"[?&]file=[0-9a-f]{16}")


def _hostile_file(folder: Path) -> Path:
    """Write pairs with markup in a prompt and in a column's name, one pair twice, and a row that cannot be used."""
    with (FILES / "tone.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:61]
    rows[0][0] = f"{HOSTILE} {rows[0][0]}"
    path = folder / "mine.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["frage", f"<b>gut</b>{HOSTILE[:12]}", "schlecht"], *rows, rows[5], ["?", "", "!"]])
    return path


def test_a_file_is_explained_repaired_and_downloaded(
    server: str, page: sync_api.Page, trouble: Trouble, tmp_path: Path
) -> None:
    """A visitor uploads pairs under odd names, says which column is which, pages, repairs, and takes the file home."""
    page.goto(server)
    expect(page.locator("#pairs mark").first).to_be_visible()
    expect(page.locator("#where")).to_have_text("Pairs 1–5 of 500")

    page.locator("input[type=file]").first.set_input_files(_hostile_file(tmp_path))
    expect(page.locator("#reading").get_by_role("alert")).to_contain_text("mine.csv: It has no header")
    expect(page).to_have_url(OWN_FILE)
    for gone in ("#pairs td", "#findings li", "#lengths svg"):
        expect(page.locator(gone)).to_have_count(0)
    assert sum(path.stat().st_size for path in (tmp_path / "uploads").rglob("*") if path.is_file()) == 0

    for part, column in (("prompt", "frage"), ("chosen", "<b>gut"), ("rejected", "schlecht")):
        page.locator(f"#column-{part} input").click()
        page.locator("[role=option]:visible", has_text=column).last.click()
    page.locator("#read-so").click()
    expect(page.locator("#reading")).to_contain_text("mine.csv: 61 pairs, read as: one pair a row; prompt ← `frage`")
    expect(page.locator("#pairs td").first).to_contain_text(HOSTILE)

    page.locator("#next").click()
    expect(page.locator("#where")).to_have_text("Pairs 6–10 of 61")
    expect(page.locator("#pairs tbody tr")).to_have_count(5)
    page.locator("#previous").click()
    expect(page.locator("#previous")).to_be_disabled()

    expect(page.locator("#findings")).to_contain_text("everything is the same as in an earlier pair")
    uploaded = page.url
    page.locator("#repair").click()
    expect(page).not_to_have_url(uploaded)
    expect(page.locator("#reading")).to_contain_text("Changed: dropped: a repeat: 1; left out: no chosen: 1.")
    expect(page.locator("#reading")).to_contain_text("mine-repaired.csv: 60 pairs")
    page.reload()
    link = page.get_by_role("link", name="Download the cleaned file")
    answer = page.request.get(f"{server.rstrip('/')}/{link.get_attribute('href')}")
    assert answer.status == 200
    assert answer.text().count("\n") == 61
    assert page.locator('img[src="x"]').count() == 0
    assert page.title() == "dpo_hub"
    _write_a_pair(page)
    assert trouble.errors == []


def _write_a_pair(page: sync_api.Page) -> None:
    """Add two pairs of one's own, the second to the same file, which therefore shows anew under the same address."""
    page.locator("#write > button").click()
    for count in ("1 pair", "2 pairs"):
        for box, text in (("write-prompt", f"{count}?"), ("reply-a", "Yes, with pleasure."), ("reply-b", "No.")):
            page.locator(f"#{box} textarea").fill(text)
        page.locator("#a-better").click()
        expect(page.locator("#written")).to_have_text(f"{count} written in this file.")
        expect(page.locator("#write-prompt textarea")).to_have_value("")
    expect(page.locator("#pairs td.chosen").first).to_have_text("Yes, with pleasure.")
