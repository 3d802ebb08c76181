"""The app as users experience it: first paint, first token, the cost of watching a run, and twenty visitors at once.

    python benchmarks/app.py [--parts paint,token,watch,load] [--repeats 6] [--window 10] [--json]

The server runs in a separate process, and the browser is a Chromium. Figures are medians.

paint: from starting app.py to the first contentful paint, and to the first row of the first step; whether the server
has loaded torch by then.
token: from pressing Send to the first text of the tuned model: as soon as the chat opens, while the models load, and
once they are ready.
watch: how much longer a step takes with a client that polls as the page does, and with a browser on the page; the
longest time between two updates of the plots.
load: how much longer a step takes with visitors who call the endpoint /status once a second each, and how long the
answers take.

For watch and load, one run trains throughout, without evaluating held-out pairs, because an evaluation pauses steps.
Each window is between two without clients; the figure is the median of the windows' ratios to these two.
Server, run, browser and clients share the machine's cores; `cores` are those that the server and this process used.

Targets: first paint within 4 s, without torch; first token within 2 s when the models are ready; new plots every 2 s; a
client slows training by at most 3 %; 20 visitors: no error, p95 at most 500 ms, training at most 10 % slower.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from secrets import token_hex
from statistics import mean, median
from typing import Any

import httpx
import psutil
from playwright import sync_api

from dpo_hub.app.steps.train import REFRESH_SECONDS
from dpo_hub.demo import FILES
from dpo_hub.preferences import read_preferences
from dpo_hub.recipe import Recipe
from dpo_hub.runs.launch import start, stop
from dpo_hub.runs.run import Run, all_runs

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
STARTS, PAIRS, VISITORS, EVERY = 3, 160, 20, 1.0
TIMEOUT = 300.0
WARM_UP = 10
"""Steps before the first window."""
QUESTIONS = (
    "Where is my order?",
    "How do I change my password?",
    "Can I get a refund?",
    "Do you ship to Norway?",
    "My parcel is damaged.",
)
FIRST_TEXT = """async () => {
  const replies = () => document.querySelectorAll("#after [data-testid=bot]");
  const send = document.querySelector("#send"), asked = replies().length;
  send.click();
  const began = performance.now();
  while (!(replies().length > asked && /\\w/.test([...replies()].at(-1).innerText)))
    await new Promise(requestAnimationFrame);
  return (performance.now() - began) / 1000;
}"""
NOTE_UPDATES = """() => {
  window.updates = [];
  new MutationObserver(() => window.updates.push(performance.now() / 1000))
    .observe(document.querySelector("#curves"), {childList: true, subtree: true, characterData: true});
}"""


class Served:
    """The app in a separate process."""

    def __init__(self) -> None:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        settings = {"GRADIO_SERVER_PORT": str(port), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        settings |= {"GRADIO_TEMP_DIR": f"{os.environ['DPO_HUB_HOME']}/uploads", "HF_HUB_OFFLINE": "1"}
        self.url = f"http://127.0.0.1:{port}"
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=os.environ | settings, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        if not any("http://" in line for line in self.process.stdout):
            raise SystemExit("the server ended before it listened")

    @property
    def has_torch(self) -> bool:
        return any("libtorch" in mapped.path for mapped in psutil.Process(self.process.pid).memory_maps())

    @property
    def cpu(self) -> float:
        return cpu_seconds(self.process.pid)

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


@contextmanager
def serving() -> Iterator[Served]:
    served = Served()
    try:
        yield served
    finally:
        served.end()


def cpu_seconds(pid: int | None = None) -> float:
    """CPU seconds that a process has used, by default this one."""
    used = psutil.Process(pid).cpu_times()
    return used.user + used.system


@contextmanager
def chromium() -> Iterator[sync_api.Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=OPTIONS)
        yield browser
        browser.close()


@contextmanager
def visiting(browser: sync_api.Browser, address: str) -> Iterator[sync_api.Page]:
    """A page for a new visitor."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    context.set_default_timeout(TIMEOUT * 1000)
    page = context.new_page()
    page.goto(address)
    yield page
    context.close()


def wait_until(happens: Callable[[], Any]) -> None:
    """Wait until *happens* returns true."""
    end = time.monotonic() + TIMEOUT
    while not happens():
        if time.monotonic() > end:
            raise SystemExit("waited in vain; the machine is too busy, or something is broken")
        time.sleep(0.02)


PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
"""Milliseconds from requesting the page to the first text or image on it."""


def paint(options: argparse.Namespace) -> dict[str, Any]:
    """Start the app a few times, and open it with a browser that is already running."""
    del options
    painted, seconds, torch = [], [], False
    with chromium() as browser:
        for _ in range(STARTS):
            with serving() as served:
                asked = time.perf_counter() - served.began
                with visiting(browser, served.url) as page:
                    page.locator("#pairs td").first.wait_for()
                    seconds.append(time.perf_counter() - served.began)
                    painted.append(asked + page.evaluate(PAINTED) / 1000)
                torch = torch or served.has_torch
    return {"first_paint": median(painted), "first_pairs": median(seconds), "starts": rounded(seconds), "torch": torch}


def token(options: argparse.Namespace) -> dict[str, Any]:
    """Train on a part of the demo's file, and chat with the result."""
    del options
    home = Path(os.environ["DPO_HUB_HOME"])
    lines = (FILES / "tone.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (home / "tone.csv").write_text("".join(lines[: PAIRS + 1]), encoding="utf-8")
    command = [sys.executable, "-m", "dpo_hub", "train", str(home / "tone.csv"), "--evaluations", "0"]
    subprocess.run(command, check=True, capture_output=True)
    seconds = []
    with (
        serving() as served,
        chromium() as browser,
        visiting(browser, f"{served.url}/?run={all_runs()[0].id}&step=compare") as page,
    ):
        for question in ("Is anybody there?", *QUESTIONS):
            page.locator("#message textarea").fill(question)
            page.wait_for_function("!document.querySelector('#send').disabled")
            seconds.append(page.evaluate(FIRST_TEXT))
            page.locator("#stop-replies").wait_for(state="hidden")
    first, *later = seconds
    return {"first_token": median(later), "questions": rounded(later), "first_token_with_loading": first}


@contextmanager
def training() -> Iterator[Run]:
    """A run that trains for longer than any measurement takes."""
    run = Run.create(read_preferences(FILES / "tone.csv"), Recipe.for_model(epochs=100.0, evaluations=0))
    start(run)
    try:
        wait_until(lambda: run.last_metrics.get("step", 0) >= WARM_UP)
        yield run
    finally:
        stop(run)


def pace(run: Run, served: Served, during: Callable[[], Any]) -> dict[str, float]:
    """Seconds a step takes *during* something, measured between two steps that were just logged."""

    def next_step() -> tuple[float, int]:
        last = run.last_metrics["step"]
        wait_until(lambda: run.last_metrics["step"] > last or run.state.ended)
        if run.state.ended:
            raise SystemExit(f"the run ended before the last window did: {run.state.status}. Ask for shorter windows.")
        return time.perf_counter(), int(run.last_metrics["step"])

    began, first = next_step()
    server, client = served.cpu, cpu_seconds()
    during()
    took = time.perf_counter() - began
    cores = {"server": (served.cpu - server) / took, "client": (cpu_seconds() - client) / took}
    ended, last = next_step()
    return {"seconds_a_step": (ended - began) / (last - first), **cores}


def in_turns(
    alone: Callable[[], dict[str, float]], ways: dict[str, Callable[[], dict[str, float]]], repeats: int
) -> dict[str, Any]:
    """Measure each way between two windows without it, since the speed of a shared machine drifts."""
    windows = {"alone": [alone()]} | {way: [] for way in ways}
    slower: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, measure in ways.items():
            windows[way].append(measure())
            windows["alone"].append(alone())
            beside = mean(window["seconds_a_step"] for window in windows["alone"][-2:])
            slower[way].append(windows[way][-1]["seconds_a_step"] / beside - 1)
    return {
        "windows": {way: [round(window["seconds_a_step"], 4) for window in of] for way, of in windows.items()},
        "slower": {way: median(of) for way, of in slower.items()},
        "cores": {
            way: {whose: round(median(window[whose] for window in of), 4) for whose in ("server", "client")}
            for way, of in windows.items()
        },
    }


def watch(options: argparse.Namespace) -> dict[str, Any]:
    """Let a client and a browser watch a run."""
    waits = []
    with training() as run, serving() as served, chromium() as browser:

        def by_browser() -> dict[str, float]:
            with visiting(browser, f"{served.url}/?run={run.id}&step=train") as page:
                page.locator("#curves svg").first.wait_for()
                page.evaluate(NOTE_UPDATES)
                found = pace(run, served, lambda: page.wait_for_timeout(options.window * 1000))
                times = page.evaluate("window.updates")
            waits.append(max((later - earlier for earlier, later in pairwise(times)), default=math.inf))
            return found

        watcher = Watcher(served.url, run.id)
        found = in_turns(
            lambda: pace(run, served, lambda: time.sleep(options.window)),
            {
                "client": lambda: pace(run, served, lambda: watcher.watch(options.window)),
                "browser": by_browser,
            },
            options.repeats,
        )
    return {**found, "longest_wait_of_plots": max(waits)}


class Watcher:
    """A client that makes the same requests as an open page, as often, without drawing anything."""

    def __init__(self, url: str, run: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=30)
        handlers = self.client.get("/config").raise_for_status().json()["dependencies"]
        watch = next(one["id"] for one in handlers if one["api_name"] == "_watch")
        self.asked = {"data": [run, None], "fn_index": watch, "session_hash": token_hex(8), "trigger_id": None}
        self.ask()

    def watch(self, seconds: float) -> None:
        """Send requests until the time is over."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self.ask()
            time.sleep(max(0.0, now + REFRESH_SECONDS - time.monotonic()))

    def ask(self) -> None:
        told = self.client.post("/gradio_api/run/predict", json=self.asked).raise_for_status().text
        if "Training" not in told:
            raise SystemExit(f"the page's handler said: {told[-500:]}")


def load(options: argparse.Namespace) -> dict[str, Any]:
    """Let visitors request a run's status, each once a second."""
    with training() as run, serving() as served:
        os.nice(19)  # real visitors have machines of their own
        visitors = Visitors(served.url, run.id)
        asyncio.run(visitors.stay(EVERY))
        found = in_turns(
            lambda: pace(run, served, lambda: time.sleep(options.window)),
            {"visited": lambda: pace(run, served, lambda: asyncio.run(visitors.stay(options.window)))},
            options.repeats,
        )
    latencies = sorted(visitors.latencies)
    return {
        "visitors": VISITORS,
        "answers": len(latencies),
        "errors": len(visitors.errors),
        "first_errors": visitors.errors[:3],
        "p50_ms": 1000 * percentile(latencies, 0.5),
        "p95_ms": 1000 * percentile(latencies, 0.95),
        "most_ms": 1000 * percentile(latencies, 1),
        **found,
    }


def percentile(ordered: list[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


@dataclass
class Visitors:
    """Visitors who request one run's status, each with a session and a connection of their own.

    Plain HTTP, since an httpx client takes as much of the shared cores as the server.
    """

    url: str
    run: str
    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    async def stay(self, seconds: float) -> None:
        """Send requests until the time is over, with staggered starts."""
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as visitors:
            for number in range(VISITORS):
                visitors.create_task(self._visit(number, end))

    async def _visit(self, number: int, end: float) -> None:
        body = json.dumps({"data": [self.run], "session_hash": f"visitor{number}"})
        host = self.url.removeprefix("http://")
        head = f"POST /gradio_api/run/status HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json"
        request = f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        await asyncio.sleep(number * EVERY / VISITORS)
        reader, writer = await asyncio.open_connection(*host.split(":"))
        with closing(writer):
            while (now := time.monotonic()) < end:
                try:
                    writer.write(request)
                    async with asyncio.timeout(30):
                        await self._answered(reader)
                    self.latencies.append(time.monotonic() - now)
                except (OSError, asyncio.IncompleteReadError, LookupError, ValueError) as error:
                    self.errors.append(repr(error))
                await asyncio.sleep(max(0.0, now + EVERY - time.monotonic()))

    async def _answered(self, reader: asyncio.StreamReader) -> None:
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if line)
        told = await reader.readexactly(int(headers["content-length"]))
        if " 200 " not in status or json.loads(told)["data"][0]["run"] != self.run:
            raise ValueError(f"{status}: {told!r}")


def rounded(values: list[float]) -> list[float]:
    return [round(value, 4) for value in values]


def told_paint(found: dict[str, Any]) -> str:
    return (
        f"first paint {found['first_paint']:.1f} s after the start, {'WITH' if found['torch'] else 'without'} torch, "
        f"and the first pairs {found['first_pairs']:.1f} s after it"
    )


def told_token(found: dict[str, Any]) -> str:
    return (
        f"first token {found['first_token']:.2f} s after Send with the models ready, and "
        f"{found['first_token_with_loading']:.1f} s while they load"
    )


def told_watch(found: dict[str, Any]) -> str:
    return (
        f"watching: {median(found['windows']['alone']) * 1000:.0f} ms a step alone, {found['slower']['client']:+.1%} "
        f"with a client that polls, {found['slower']['browser']:+.1%} with a browser on the same cores; plots anew at "
        f"least every {found['longest_wait_of_plots']:.1f} s"
    )


def told_load(found: dict[str, Any]) -> str:
    return (
        f"{found['visitors']} visitors: {found['answers']} answers, {found['errors']} errors, p50 "
        f"{found['p50_ms']:.0f} ms, p95 {found['p95_ms']:.0f} ms, at most {found['most_ms']:.0f} ms; "
        f"training {found['slower']['visited']:+.1%}"
    )


PARTS = {"paint": (paint, told_paint), "token": (token, told_token), "watch": (watch, told_watch)}
PARTS |= {"load": (load, told_load)}


def main() -> None:
    """Measure the requested parts, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure")
    parser.add_argument("--repeats", type=int, default=6, help="windows of each kind")
    parser.add_argument("--window", type=float, default=10.0, help="seconds of each of them")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # not without ending what it started
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    found = {}
    for name in parts:
        measure, tell = PARTS[name]
        with tempfile.TemporaryDirectory() as home:
            os.environ["DPO_HUB_HOME"] = home
            found[name] = measure(options)
        if not options.json:
            print(tell(found[name]), flush=True)
    if options.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
