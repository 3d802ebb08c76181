"""The main job, in a browser: a file goes in, a run is watched, and both sides answer."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

from playwright import sync_api

from dpo_hub.demo import FILES

from .conftest import Trouble

expect = sync_api.expect

HOSTILE = '<img src="x" onerror="document.title=\'taken over\'">'
PATIENCE = 240_000
"""Milliseconds to wait for training and for models. Seconds are enough, unless the machine is busy."""

RUN_IN_ADDRESS = re.compile(r"[?&]run=mine-")


def _wrong_file(folder: Path) -> Path:
    """Write a file that lacks a column and has markup in another one's name."""
    path = folder / "wrong.csv"
    path.write_text("prompt,chosen,<b>reply</b>\nHello,Good day!,What?\n", encoding="utf-8")
    return path


def _good_file(folder: Path) -> Path:
    """Write a preference file with markup in its first prompt and one row that cannot be used."""
    with (FILES / "tone.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))[:161]
    rows[0][0] = f"{HOSTILE} {rows[0][0]}"
    path = folder / "mine.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows, ["A question without an answer", "", "Hm."]])
    return path


def test_a_file_becomes_a_model_that_answers_on_both_sides(
    server: str, page: sync_api.Page, trouble: Trouble, tmp_path: Path, picture: Callable[[str], None]
) -> None:
    """A visitor uploads pairs, trains, reloads midway, sees the end, and talks to the model before and after."""
    page.goto(server)
    expect(page.get_by_text("tone.csv: 500 pairs, read as:")).to_be_visible()
    picture("1-arrival")

    _upload(page, _wrong_file(tmp_path))
    expect(
        page.get_by_text("wrong.csv: Its columns, 'prompt', 'chosen', '<b>reply</b>', fit no layout that is known")
    ).to_be_visible()
    expect(page.locator("#reading td")).to_have_count(0)
    picture("2-refused")
    page.get_by_label("Close").first.click()

    _upload(page, _good_file(tmp_path))
    expect(page.get_by_text("1 row left out (no chosen: row 162)")).to_be_visible()
    expect(page.locator("#reading td").first).to_contain_text(HOSTILE)
    picture("3-pairs")

    page.get_by_label("Epochs").fill("2")
    page.locator("#train").click()
    progress = page.locator("#progress")
    expect(progress.get_by_text(re.compile(r"^[1-9]\d* / 16$"))).to_be_visible(timeout=PATIENCE)
    expect(page).to_have_url(RUN_IN_ADDRESS)
    picture("4-training")

    page.reload()
    expect(page).to_have_url(RUN_IN_ADDRESS)
    expect(progress.get_by_text("running", exact=True)).to_be_visible()
    expect(progress.get_by_text("run mine-")).to_be_visible()
    expect(progress.get_by_text("Finished.")).to_be_visible(timeout=PATIENCE)
    expect(progress.get_by_text("Held-out accuracy")).to_be_visible()

    page.locator("button.suggestion").first.click()
    _expect_replies(page, 1)
    picture("5-chat")
    page.get_by_role("textbox", name="Message").fill(HOSTILE)
    page.get_by_role("textbox", name="Message").press("Enter")
    _expect_replies(page, 2)
    assert page.locator('img[src="x"]').count() == 0
    page.set_viewport_size({"width": 390, "height": 844})
    page.reload()
    expect(page.locator("#samples td").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    picture("6-narrow")

    assert page.title() == "dpo_hub"
    assert trouble.errors == []
    assert trouble.outside == []


def _upload(page: sync_api.Page, path: Path) -> None:
    """Hand over a file, in place of the one that is there."""
    if (remove := page.get_by_label("Clear")).first.is_visible():
        remove.first.click()
    page.locator("input[type=file]").first.set_input_files(path)


def _expect_replies(page: sync_api.Page, count: int) -> None:
    for side in ("#before", "#after"):
        replies = page.locator(f"{side} [data-testid=bot]")
        expect(replies).to_have_count(count, timeout=PATIENCE)
        expect(replies.last).to_have_text(re.compile(r"\w"))
