"""Take the pictures of the app in docs/screenshots/ anew, from a run that is trained for them on the page."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from dpo_hub.runs.launch import stop
from dpo_hub.runs.run import all_runs

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 900_000
"""Milliseconds to wait for training and for models."""
STEPS_SHOWN = 30
"""The picture of the training is taken when so many of its steps were done."""
LARGEST = 150_000
"""Bytes of a picture."""


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, _serving(Path(home)) as url, sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        expect.set_options(timeout=30_000)
        _in_dark(browser, _walk(browser, url))
        browser.close()
    for path in sorted(FOLDER.glob("*.png")):
        size = path.stat().st_size
        print(f"{path.relative_to(ROOT)}: {size / 1000:.0f} kB")
        if size > LARGEST:
            raise SystemExit(f"{path.name} has more than {LARGEST / 1000:.0f} kB.")


@contextmanager
def _serving(home: Path) -> Iterator[str]:
    """The app in a process of its own, with nothing in its home and without the Hub."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "DPO_HUB_HOME": str(home),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(home / "uploads"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "app.py"]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | settings, stdout=subprocess.PIPE, text=True) as app:
        assert app.stdout is not None
        try:
            if not any("http://" in line for line in app.stdout):
                raise SystemExit("The app ended before it listened.")
            yield f"http://127.0.0.1:{port}"
        finally:
            app.terminate()
            for run in all_runs(home):
                stop(run)


def _page(browser: Browser, **look: object) -> Page:
    page = browser.new_context(**look).new_page()  # type: ignore[arg-type]
    page.set_default_timeout(30_000)
    return page


def _walk(browser: Browser, url: str) -> str:
    """Go through all steps, taking a picture of each; return where a finished run is open."""
    page = _page(browser, viewport={"width": 1440, "height": 900})
    page.goto(url)
    expect(page.locator("#pairs mark").first).to_be_visible()
    expect(page.locator("#findings")).not_to_be_empty()
    expect(page.locator("#lengths svg").first).to_be_visible()
    _take(page, "preferences")

    page.locator("#to-recipe").click()
    expect(page.locator("#train")).to_be_visible()
    page.locator("#look-ahead").click()
    expect(page.locator("#ahead")).to_contain_text("memory", timeout=PATIENCE, ignore_case=True)
    _take(page, "recipe")

    page.locator("#train").click()
    done = f"document.querySelector('#progress progress')?.value >= {STEPS_SHOWN}"
    page.wait_for_function(done, timeout=PATIENCE)
    _take(page, "train")
    expect(page.locator("#progress")).to_contain_text("Finished.", timeout=PATIENCE)
    page.locator("#to-compare").click()
    _compare(page)

    page.get_by_role("tab", name="Publish", exact=True).click()
    expect(page.locator("#card")).to_contain_text(re.compile(r"\w"))
    page.locator("#repo input, #repo textarea").fill("your-name/tone")
    page.locator("#repo input, #repo textarea").blur()
    _take(page, "publish")
    return page.url


def _compare(page: Page) -> None:
    _ask(page)
    _take(page, "compare")

    page.get_by_role("tab", name="Blind vote").click()
    page.locator("#draw").click()
    vote = page.locator("#vote-left")
    expect(vote).to_be_enabled(timeout=PATIENCE)
    left, right = (page.locator(f"#ballot-{side} textarea").input_value() for side in ("left", "right"))
    page.locator("#vote-left" if len(left) > len(right) else "#vote-right").click()  # the kinder one is longer
    expect(page.locator("#votes-result")).to_contain_text("of 1 blind vote")
    expect(vote).to_be_enabled(timeout=PATIENCE)
    _take(page, "vote")

    page.get_by_role("tab", name="What it learned").click()
    expect(page.locator("#lens-reply-2 textarea")).not_to_be_empty()
    page.locator("#read").click()
    expect(page.locator("#readings .token").first).to_be_visible(timeout=PATIENCE)
    _take(page, "lens")


def _ask(page: Page) -> None:
    """Ask both sides something, and wait for what they say."""
    page.locator("button.suggestion").first.click()
    for side in ("#before", "#after"):
        reply = page.locator(f"{side} [data-testid=bot]")
        expect(reply).to_have_text(re.compile(r"\w"), timeout=PATIENCE)
    expect(page.locator("#stop-replies")).to_be_hidden(timeout=PATIENCE)


def _in_dark(browser: Browser, address: str) -> None:
    """The comparison as a phone shows it, in the dark."""
    page = _page(browser, viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.goto(address.replace("step=publish", "step=compare"))
    _ask(page)
    _take(page, "compare-narrow-dark")


def _take(page: Page, name: str) -> None:
    """Take a picture of the whole page, in as few colours as make it small and change nothing that is seen."""
    path = FOLDER / f"{name}.png"
    page.mouse.move(0, 0)
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(500)
    page.screenshot(path=path, full_page=True, animations="disabled")
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


if __name__ == "__main__":
    main()
