"""Nothing is lost: reloads, second tabs and people, a server that is killed, and a queue that is full."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from filelock import FileLock
from playwright import sync_api

from dpo_hub import Run

from .conftest import THERE, OpenPage, Served

expect = sync_api.expect
PATIENCE = 240_000


def _train(page: sync_api.Page, *, epochs: str = "2") -> None:
    """Train on the demo's file, from the first step on."""
    page.get_by_role("button", name="Next: the recipe").click()
    page.get_by_text("Advanced", exact=True).click()
    page.get_by_label("Epochs").fill(epochs)
    page.locator("#train").click()


def _steps_done(page: sync_api.Page, least: int) -> None:
    """Wait until the page shows that so many steps were done."""
    expect(page.locator("#progress progress")).to_be_visible(timeout=PATIENCE)
    page.wait_for_function(f"document.querySelector('#progress progress')?.value >= {least}", timeout=PATIENCE)


@pytest.mark.full
def test_a_reload_comes_back_to_the_same_step(app: Served, finished: Run, page: sync_api.Page) -> None:
    """The address has run and step, so the page opens there again, and so does a link that somebody kept."""
    app.start()
    for step, there in THERE.items():
        page.goto(f"{app.url}/?run={finished.id}&step={step}")
        expect(page.locator(there).first).to_be_visible()
        page.reload()
        expect(page.locator(there).first).to_be_visible()
        expect(page).to_have_url(re.compile(f"[?&]step={step}(&|$)"))


def test_settings_outlast_a_reload(server: str, page: sync_api.Page) -> None:
    """What was set in the recipe is there again."""
    page.goto(server)
    page.get_by_role("button", name="Next: the recipe").click()
    page.get_by_label("Strong").check()
    page.get_by_text("Advanced", exact=True).click()
    expect(page.get_by_label("Beta")).to_have_value("0.5")
    page.get_by_label("Epochs").fill("3")
    expect(page.get_by_label("Strong")).not_to_be_checked()
    page.reload()
    page.get_by_text("Advanced", exact=True).click()
    expect(page.get_by_label("Epochs")).to_have_value("3")
    expect(page.get_by_label("Beta")).to_have_value("0.5")


def test_settings_of_another_model_outlast_a_reload(server: str, page: sync_api.Page) -> None:
    """Choosing a model gives its safe settings; coming back to it does not put one's own back to them."""
    page.goto(server)
    page.get_by_role("button", name="Next: the recipe").click()
    page.locator("#model input").click()
    page.locator("[role=option]:visible", has_text="Qwen/Qwen2.5-0.5B-Instruct").click()
    page.get_by_text("Advanced", exact=True).click()
    expect(page.get_by_label("Beta")).to_have_value("0.1")
    page.get_by_label("Epochs").fill("3")
    expect(page.get_by_label("Standard")).not_to_be_checked()
    page.reload()
    page.get_by_text("Advanced", exact=True).click()
    expect(page.locator("#model input")).to_have_value("Qwen/Qwen2.5-0.5B-Instruct")
    expect(page.get_by_label("Epochs")).to_have_value("3")


@pytest.mark.full
def test_two_people_see_the_same_run_and_queue_behind_each_other(server: str, new_page: OpenPage) -> None:
    """A second browser opens the run by its link; its own run waits, says so, and trains after the first."""
    first, second = new_page(), new_page()
    first.goto(server)
    _train(first, epochs="0.4")
    _steps_done(first, 1)
    second.goto(first.url)
    _steps_done(second, 1)
    second.get_by_role("tab", name="Preferences").click()
    _train(second, epochs="0.2")
    expect(second.locator("#progress")).to_contain_text("Queued", timeout=PATIENCE)
    expect(first.locator("#progress")).to_contain_text("Finished.", timeout=PATIENCE)
    expect(second.locator("#progress")).to_contain_text("Finished.", timeout=PATIENCE)


@pytest.mark.full
def test_a_killed_server_loses_no_run(app: Served, page: sync_api.Page) -> None:
    """Training goes on without the server, and the page finds it again once there is one."""
    app.start()
    page.goto(app.url)
    _train(page, epochs="1")
    _steps_done(page, 3)
    app.kill()
    app.start()
    page.reload()
    _steps_done(page, 4)
    expect(page.locator("#progress")).to_contain_text("Finished.", timeout=PATIENCE)


@pytest.mark.full
def test_a_full_queue_is_told_and_nothing_begins(app: Served, page: sync_api.Page, home: Path) -> None:
    """Where as many runs wait as may, Train says so, and makes no run."""
    home.mkdir()
    app.start(DPO_HUB_MAX_QUEUE="1")
    page.goto(app.url)
    with FileLock(home / "device.lock"):  # somebody trains, so that what is started waits
        _train(page)
        expect(page.locator("#progress")).to_contain_text("Queued", timeout=PATIENCE)
        page.get_by_role("tab", name="Recipe").click()
        page.locator("#train").click()
        expect(page.get_by_text("The queue is full, at 1.")).to_be_visible()
        expect(page).to_have_url(re.compile("step=recipe"))
        assert len(list((home / "runs").iterdir())) == 1


def test_a_run_is_removed_only_after_a_second_question(app: Served, finished: Run, page: sync_api.Page) -> None:
    """The list has it, one button asks, and the next one deletes it."""
    app.start()
    page.goto(f"{app.url}/?run={finished.id}&step=train")
    page.locator("#remove").click()
    assert finished.path.exists()
    page.locator("#remove-yes").click()
    expect(page.locator("#progress")).to_contain_text("No run is open")
    assert not finished.path.exists()
    expect(page).not_to_have_url(re.compile("run="))
