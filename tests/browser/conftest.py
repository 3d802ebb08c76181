"""A real server, a real Chromium, and a note of whatever goes wrong in it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from playwright import sync_api

ROOT = Path(__file__).parents[2]
ARTIFACTS = Path(__file__).parent / "artifacts"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of an app with no runs, on a port of its own."""
    port = _free_port()
    settings = {
        "DPO_HUB_HOME": str(tmp_path / "home"),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(tmp_path / "uploads"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    app = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield _address(app)
    finally:
        _end(app)


def _free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _address(app: subprocess.Popen[str]) -> str:
    """Read what the server prints until it names its address."""
    assert app.stdout is not None
    printed = []
    for line in app.stdout:
        printed.append(line)
        if "http://" in line:
            return line.rpartition(" ")[2].strip()
    pytest.fail("the server ended before it listened:\n" + "".join(printed))


def _end(app: subprocess.Popen[str]) -> None:
    """End the server and a worker that it may have left at work."""
    processes = psutil.Process(app.pid).children(recursive=True)
    app.send_signal(signal.SIGINT)
    try:
        app.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        app.kill()
        app.communicate()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


class Trouble:
    """What a page complained of, and where it asked for things outside this machine."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.outside: list[str] = []

    def listen(self, page: sync_api.Page) -> None:
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._note)

    def _note(self, request: sync_api.Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob") and address.hostname != "127.0.0.1":
            self.outside.append(request.url)


@pytest.fixture
def trouble() -> Trouble:
    return Trouble()


@pytest.fixture
def page(trouble: Trouble) -> Iterator[sync_api.Page]:
    """An empty page, 1440 pixels wide."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=OPTIONS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(30_000)
        sync_api.expect.set_options(timeout=30_000)
        trouble.listen(page)
        yield page
        browser.close()


@pytest.fixture
def picture(page: sync_api.Page) -> Callable[[str], None]:
    """Take a picture of the whole page for people to look at."""
    ARTIFACTS.mkdir(exist_ok=True)

    def take(name: str) -> None:
        page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)

    return take
