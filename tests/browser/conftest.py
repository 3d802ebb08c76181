"""A real server, a real Chromium, and a note of whatever goes wrong in it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil
import pytest
from playwright import sync_api

from dpo_hub import Run
from dpo_hub.demo import FILES

from ..conftest import made_once

ROOT = Path(__file__).parents[2]
ARTIFACTS = Path(__file__).parent / "artifacts"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
THERE = {
    "preferences": "#pairs td",
    "recipe": "#train",
    "train": "#curves svg",
    "compare": "button.suggestion",
    "publish": "#card",
}
"""Of each step, what shows that it is there when a finished run is open."""
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def _free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass
class Served:
    """The app in a process of its own, on a port that it keeps when it is started again."""

    home: Path
    temp: Path
    environment: dict[str, str]
    port: int = field(default_factory=_free_port)
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, **environment: str) -> None:
        self.environment |= environment
        settings = {
            "DPO_HUB_HOME": str(self.home),
            "GRADIO_SERVER_PORT": str(self.port),
            "GRADIO_TEMP_DIR": str(self.temp),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=ROOT,
            env=os.environ | settings | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        _wait_until_it_listens(self.process)

    def kill(self) -> None:
        """End it as a power cut would; workers go on."""
        assert self.process
        self.process.kill()
        self.process.communicate()

    def end(self) -> None:
        """End it, and the workers that it may have left."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                self.kill()
        for run in (self.home / "runs").glob("[!.]*"):
            state = Run(run).written_state
            for named in (state.keeper, state.worker):
                if named and named.alive():
                    with suppress(psutil.NoSuchProcess):
                        psutil.Process(named.pid).kill()


@pytest.fixture
def app(home: Path, tmp_path: Path) -> Iterator[Served]:
    """The app with an empty home, not started yet."""
    served = Served(home, tmp_path / "uploads", {"HF_HUB_OFFLINE": "1"})
    try:
        yield served
    finally:
        served.end()


@pytest.fixture
def server(app: Served) -> str:
    """The address of an app with no runs."""
    app.start()
    return app.url


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on a part of the demo's tone file."""

    def make(folder: Path) -> None:
        lines = (FILES / "tone.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / "tone.csv").write_text("".join(lines[:161]), encoding="utf-8")
        command = [sys.executable, "-m", "dpo_hub", "train", str(folder / "tone.csv"), "--evaluations", "2"]
        subprocess.run(command, env=os.environ | {"DPO_HUB_HOME": str(folder)}, check=True, capture_output=True)

    (path,) = (made_once(tmp_path_factory, "trained", make) / "runs").glob("[!.]*")
    return path


@pytest.fixture
def finished(trained: Path, home: Path) -> Run:
    """That run in this test's home."""
    return Run(shutil.copytree(trained, home / "runs" / trained.name))


def _wait_until_it_listens(app: subprocess.Popen[str]) -> None:
    """Read what the server prints until it names its address."""
    assert app.stdout is not None
    printed = []
    for line in app.stdout:
        printed.append(line)
        if "http://" in line:
            return
    pytest.fail("the server ended before it listened:\n" + "".join(printed))


CUT_OFF = ("AbortError: signal is aborted", "Unexpected error Connection errored out")
"""What Gradio's client says of requests that a reload cuts off."""


class Trouble:
    """What a page complained of, and where it asked for things outside this machine."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.outside: list[str] = []

    def listen(self, page: sync_api.Page) -> None:
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._note)

    def _hear(self, message: sync_api.ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(CUT_OFF):
            self.errors.append(message.text)

    def _note(self, request: sync_api.Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob") and address.hostname != "127.0.0.1":
            self.outside.append(request.url)


@pytest.fixture
def trouble() -> Iterator[Trouble]:
    """What the pages of a test were told of; none of them may ask for anything outside."""
    trouble = Trouble()
    yield trouble
    assert trouble.outside == []


@pytest.fixture(scope="session")
def browser() -> Iterator[sync_api.Browser]:
    """One Chromium for all tests; each opens pages that share nothing."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=OPTIONS)
        yield browser
        browser.close()


OpenPage = Callable[..., sync_api.Page]


@pytest.fixture
def new_page(browser: sync_api.Browser, trouble: Trouble) -> Iterator[OpenPage]:
    """Open pages as of different people: no cookies, no storage in common."""
    contexts = []

    def opened(*, width: int = 1440, scheme: Literal["light", "dark"] = "light") -> sync_api.Page:
        context = browser.new_context(viewport={"width": width, "height": 1000}, color_scheme=scheme)
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        trouble.listen(page)
        return page

    sync_api.expect.set_options(timeout=30_000)
    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page: OpenPage) -> sync_api.Page:
    """An empty page, 1440 pixels wide."""
    return new_page()


@pytest.fixture
def picture(page: sync_api.Page) -> Callable[[str], None]:
    """Take a picture of the whole page for people to look at."""
    ARTIFACTS.mkdir(exist_ok=True)

    def take(name: str) -> None:
        page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)

    return take
