"""The whole way in a browser: a file goes in, a run is watched, stopped and taken up, compared, voted on, published."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

from playwright import sync_api

from dpo_hub.demo import FILES

from ..hub.conftest import ADA
from ..hub.loopback import Hub, serving
from .conftest import Served, Trouble

expect = sync_api.expect

HOSTILE = '<img src="x" onerror="document.title=\'taken over\'">'
PATIENCE = 240_000
"""Milliseconds to wait for training and for models. Seconds are enough, unless the machine is busy."""


def _file(folder: Path) -> Path:
    """Write a preference file with markup in its first prompt and one row that cannot be used."""
    with (FILES / "tone.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))[:241]
    rows[0][0] = f"{HOSTILE} {rows[0][0]}"
    path = folder / "mine.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows, ["A question without an answer", "", "Hm."]])
    return path


def test_a_file_becomes_a_model_on_the_hub(
    app: Served, page: sync_api.Page, trouble: Trouble, tmp_path: Path, picture: Callable[[str], None]
) -> None:
    """A visitor uploads pairs, trains, stops, reloads, resumes, talks to both sides, votes, and publishes."""
    hub = Hub({ADA: "ada"}, frozenset(), {})
    with serving(hub):
        app.start(HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="0", HF_HOME=str(tmp_path / "hf"), HF_TOKEN="")
        page.goto(app.url)
        expect(page.get_by_text("tone.csv: 500 pairs, read as:")).to_be_visible()
        picture("1-arrival")
        _choose(page, _file(tmp_path))
        _train_with_a_stop(page, picture)
        _talk(page, picture)
        _vote(page, picture)
        _publish(page, picture)
    assert {name for name in hub.repos if name.startswith("ada/")} == {"ada/mine"}
    assert page.title() == "dpo_hub"
    assert not trouble.errors, trouble.errors


def _choose(page: sync_api.Page, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(path)
    expect(page.get_by_text("1 row left out (no chosen: row 242)")).to_be_visible()
    expect(page.locator("#reading, #pairs").locator("td").first).to_contain_text(HOSTILE)
    page.get_by_role("button", name="Next: the recipe").click()


def _train_with_a_stop(page: sync_api.Page, picture: Callable[[str], None]) -> None:
    page.locator("#train").click()
    progress = page.locator("#progress")
    expect(progress.get_by_text(re.compile(r"^([4-9]|\d\d) / 24$"))).to_be_visible(timeout=PATIENCE)
    expect(page).to_have_url(re.compile(r"[?&]run=mine-"))
    picture("2-training")
    page.locator("#stop").click()
    expect(progress.get_by_text("stopped", exact=True)).to_be_visible(timeout=PATIENCE)
    page.reload()
    expect(progress.get_by_text(re.compile(r"Stopped after step \d+"))).to_be_visible()
    page.locator("#resume").click()
    expect(progress.get_by_text("Finished.")).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#curves svg")).to_have_count(4)
    expect(page.locator("#samples td").first).to_be_visible()
    picture("3-finished")
    page.locator("#to-compare").click()


def _talk(page: sync_api.Page, picture: Callable[[str], None]) -> None:
    page.locator("button.suggestion").first.click()
    _expect_replies(page, 1)
    page.locator("#message textarea").fill(HOSTILE)
    page.locator("#send").click()
    _expect_replies(page, 2)
    assert page.locator('img[src="x"]').count() == 0
    picture("4-chat")
    page.reload()
    _expect_replies(page, 2)


def _expect_replies(page: sync_api.Page, count: int) -> None:
    for side in ("#before", "#after"):
        replies = page.locator(f"{side} [data-testid=bot]")
        expect(replies).to_have_count(count, timeout=PATIENCE)
        expect(replies.last).to_have_text(re.compile(r"\w"))
    expect(page.locator("#stop-replies")).to_be_hidden(timeout=PATIENCE)


def _vote(page: sync_api.Page, picture: Callable[[str], None]) -> None:
    page.get_by_role("tab", name="Blind vote").click()
    page.locator("#draw").click()
    vote = page.locator("#vote-left")
    expect(vote).to_be_enabled(timeout=PATIENCE)
    vote.click()
    expect(page.locator("#votes-result")).to_contain_text("of 1 blind vote ")
    expect(page.get_by_text(re.compile("you chose the left reply, which was “(before|after)”"))).to_be_visible()
    picture("5-votes")
    page.get_by_role("tab", name="What it learned").click()
    expect(page.locator("#lens-reply-2 textarea")).not_to_be_empty()
    page.locator("#read").click()
    expect(page.locator("#readings .token").first).to_be_visible(timeout=PATIENCE)
    picture("6-lens")


def _publish(page: sync_api.Page, picture: Callable[[str], None]) -> None:
    page.get_by_role("tab", name="Publish", exact=True).click()
    page.locator("#repo input, #repo textarea").fill("ada/mine")
    page.locator("#token input").fill(ADA)
    page.locator("#publish").click()
    expect(page.locator("#publishing a").first).to_have_attribute("href", re.compile("/ada/mine$"), timeout=PATIENCE)
    picture("7-published")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
