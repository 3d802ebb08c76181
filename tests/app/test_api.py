"""The endpoints for programs, asked of a real server with Gradio's own client, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx2

from dpo_hub import Recipe, Run, read_preferences

from ..browser.conftest import app, server  # noqa: F401  # fixtures

DOCS = Path(__file__).parents[2] / "docs" / "api.md"
ENDPOINTS = ["check", "compare", "publish", "status", "train"]
SPACE = {
    "SPACE_ID": "ada/app",
    "SPACE_HOST": "ada-app.hf.space",
    "SYSTEM": "spaces",
    "OAUTH_CLIENT_ID": "x",
    "OAUTH_CLIENT_SECRET": "y",
    "OAUTH_SCOPES": "openid",
    "OPENID_PROVIDER_URL": "https://huggingface.co",
}
OPEN = """
import json
from dpo_hub.app.page import build

described = build().get_api_info(all_endpoints=True)
assert not described["unnamed_endpoints"]
print(json.dumps(sorted(name.strip("/") for name in described["named_endpoints"])))
"""
CALM = """
import gradio as gr
from dpo_hub.app.page import QUEUE_POLL_SECONDS, build

assert gr.Blocks()._queue.sleep_when_free < QUEUE_POLL_SECONDS == build()._queue.sleep_when_free
"""
LISTENERS = """
from collections import Counter
from dpo_hub.app.page import build

waiting = Counter(
    target
    for listener in build().fns.values()
    if listener.fn and listener.trigger_mode == "always_last"
    for target in listener.targets
    if target[1] == "change"
)
assert set(waiting.values()) == {1}, waiting
"""
SCRIPT = """
import json, re, sys
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

client = Client({address!r}, verbose=False)
told = {{}}
for name, endpoint, *arguments in json.loads({calls!r}):
    given = [handle_file(one["upload"]) if isinstance(one, dict) and "upload" in one else one for one in arguments]
    try:
        told[name] = client.predict(*given, api_name=endpoint)
    except AppError as error:
        told[name] = "refused: " + str(error)
told["endpoints"] = sorted(client.view_api(print_info=False, return_format="dict")["named_endpoints"])
print(json.dumps(told))
"""


def _python(code: str, folder: Path, **environment: str) -> str:
    """What *code* prints. It runs elsewhere, because Gradio's client leaves sockets open when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _call(address: str, folder: Path, *calls: list[Any]) -> dict[str, Any]:
    """What Gradio's client is told by each call, given as a name, an endpoint and arguments."""
    told: dict[str, Any] = json.loads(_python(SCRIPT.format(address=address, calls=json.dumps(calls)), folder))
    return told


def test_only_these_endpoints_are_open() -> None:
    """Programs see five endpoints, and each handler of the page's own is closed to them, the sign-in's too."""
    for where in ({}, SPACE):
        assert json.loads(_python(OPEN, DOCS.parents[1], **where)) == ENDPOINTS


def test_the_example_of_the_docs_runs(server: str, few_pairs: Path, tmp_path: Path) -> None:  # noqa: F811
    """As it stands in docs/api.md, it reads a file, trains, waits for the end, and prints a reply of each side."""
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    shutil.copy(few_pairs, tmp_path / "pairs.csv")
    said = _python(code[1].replace("http://127.0.0.1:7860", server), tmp_path)
    assert "pairs.csv: 40 pairs, read as:" in said
    assert re.search(r"Finished\. It [a-z ,]+: \d of 8 held-out replies changed", said)
    assert re.search(r"^before: .*\w", said, re.MULTILINE)
    assert re.search(r"^after: .*\w", said, re.MULTILINE)


def test_what_is_wrong_arrives_as_a_sentence(server: str, tmp_path: Path) -> None:  # noqa: F811
    """A program sees five endpoints, and is told what it asked wrongly as people are."""
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("prompt,chosen,reply\nHello,Good day!,What?\n", encoding="utf-8")
    wanted = {
        "layout": ("wrong.csv: Its columns", ["/check", {"upload": str(wrong)}]),
        "name": ("There is no setting 'speed'", ["/train", "demo:tone", {"speed": 1}]),
        "kind": ("epochs is 'many', which is no float", ["/train", "demo:tone", {"epochs": "many"}]),
        "truth": ("seed is True, which is no int", ["/train", "demo:tone", {"seed": True}]),
        "range": ("beta is -1", ["/train", "demo:tone", {"beta": -1}]),
        "settings": ("The settings are none", ["/train", "demo:tone", [1]]),
        "file": ("This file is not here any more", ["/train", "../demo", {}]),
        "run": ("There is no such run here", ["/status", "last"]),
        "prompt": ("The prompt is empty", ["/compare", "last", " "]),
        "chat": ("There is no run to talk to", ["/compare", "last", "Hello"]),
        "repo": ("There is no run to publish", ["/publish", "last", "ada/tone"]),
    }
    told = _call(
        server, tmp_path, ["demo", "/check", "demo:tone"], *([name, *call] for name, (_, call) in wanted.items())
    )
    assert (told["demo"]["pairs"], told["demo"]["id"]) == (500, "demo:tone")
    assert told["endpoints"] == [f"/{name}" for name in ENDPOINTS]
    for name, (sentence, _) in wanted.items():
        assert told[name].startswith("refused: "), name
        assert sentence in told[name]


def test_no_file_of_the_server_is_read(server: str, tmp_path: Path) -> None:  # noqa: F811
    """A path in whatever form is refused unless it was uploaded, and what it holds is not told."""
    secret = tmp_path / "secret.csv"
    secret.write_text("prompt,chosen,rejected\ncanary-a,canary-b,canary-c\n", encoding="utf-8")
    uploads = tmp_path / "uploads"
    uploads.mkdir(exist_ok=True)
    (uploads / "link.csv").symlink_to(secret)
    for path in (str(secret), f"{uploads}/../secret.csv", f"{uploads}/link.csv", "/etc/passwd"):
        for form in (path, {"path": path}, {"path": path, "meta": {"_type": "gradio.FileData"}}, f"hub:{path}"):
            for asked in (["check", form], ["train", form, {}]):
                answer = _ask(server, *asked)
                assert "event: error" in answer, asked
                assert "canary" not in answer
                assert "event: complete" not in answer


def test_gradios_queue_looks_for_calls_less_often() -> None:
    """It has no setting for that, so this tells when it moves, or when there is no need any more."""
    subprocess.run([sys.executable, "-c", CALM], check=True)


def test_status_answers_past_the_queue(server: str, few_pairs: Path) -> None:  # noqa: F811
    """One request is enough to ask how a run goes, and what is wrong with it is a sentence there too."""
    run = Run.create(read_preferences(few_pairs), Recipe.for_model())
    found, missing = (_ask_at_once(server, "status", name) for name in (run.id, "last"))
    assert found["data"][0]["run"] == run.id
    assert "no such run" in missing["error"]


def _ask_at_once(address: str, endpoint: str, *data: Any) -> dict[str, Any]:
    body = {"data": list(data), "session_hash": uuid.uuid4().hex}
    answer = httpx2.post(f"{address.rstrip('/')}/gradio_api/run/{endpoint}", json=body, timeout=30)
    found: dict[str, Any] = answer.json()
    return found


def _ask(address: str, endpoint: str, *data: Any) -> str:
    """Ask as any program can, without the client, which would upload the file itself."""
    base = f"{address.rstrip('/')}/gradio_api/call/{endpoint}"
    body = {"data": list(data), "session_hash": uuid.uuid4().hex}
    event = httpx2.post(base, json=body, timeout=30).json()["event_id"]
    return httpx2.get(f"{base}/{event}", timeout=30).text


def test_no_change_has_several_listeners_that_wait() -> None:
    """Gradio calls all listeners of an event again if one waited for its turn: two rounds would never come to rest."""
    _python(LISTENERS, DOCS.parents[1])
