"""A Space on this machine: the real app with a loopback Hub to sign in with, and visitors who talk to it by hand.

Cookies of a Space are for https only, so visitors carry theirs by hand.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx

from ..hub.loopback import Hub

ROOT = Path(__file__).parents[2]
HOST = "ada-space.hf.space"
SECRET = "the client's secret"
OWNER = "hf_canaryOfTheOwner"
DONE, CLOSED = "process_completed", "close_stream"


@dataclass
class Space:
    """The app at *address*, with its home and its folder of uploads."""

    address: str
    home: Path
    uploads: Path
    hub: Hub
    log: Path
    client: httpx.Client

    @cached_property
    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"{self.address}/config").json()
        return found

    def endpoints(self) -> list[dict[str, Any]]:
        """What the page can call, each with its components."""
        parts = {part["id"]: part for part in self.config["components"]}
        return [
            {"id": one["id"], "name": one["api_name"], "inputs": [parts[number] for number in one["inputs"]]}
            for one in self.config["dependencies"]
            if one["backend_fn"]
        ]

    def ids(self, name: str) -> list[int]:
        """The endpoints of the handler *name*, which may be used in several places."""
        return [one["id"] for one in self.endpoints() if one["name"].rstrip("0123456789").rstrip("_") == name]


@dataclass
class Guest:
    """Somebody with a browser; *cookie* is that of their session."""

    space: Space
    cookie: str = ""

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self._send("GET", path, more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self._send("POST", path, more)

    def _send(self, method: str, path: str, more: dict[str, Any]) -> httpx.Response:
        headers = more.pop("headers", {}) | ({"cookie": f"session={self.cookie}"} if self.cookie else {})
        answer = self.space.client.request(method, f"{self.space.address}{path}", headers=headers, **more)
        self.space.client.cookies.clear()  # it is everybody's
        return answer

    def sign_in(self, user: str) -> Guest:
        """Go to the Hub and come back, as a browser does."""
        self.space.hub.signing_in = user
        answer = self._keeping(self.get("/login/huggingface"))
        answer = self.space.client.get(answer.headers["location"])
        there, _, back = answer.headers["location"].partition(HOST)
        assert there == "https://"
        answer = self._keeping(self.get(back))
        assert answer.headers["location"] == "/", answer.text
        return self

    def _keeping(self, answer: httpx.Response) -> httpx.Response:
        kept = answer.headers["set-cookie"]
        assert kept.lower().endswith("httponly; samesite=none; secure")
        self.cookie = kept.partition("session=")[2].partition(";")[0]
        return answer

    def call(self, calls: Sequence[tuple[int, list[Any]]], **asked: str) -> list[str]:
        """Call endpoints by the queue, as the page does, and return all that is told of each as it was sent.

        *asked* is what stands in the page's address.
        """
        session, told = token_hex(8), {}
        for number, data in calls:
            body = {"data": data, "fn_index": number, "session_hash": session}
            answer = self.post("/gradio_api/queue/join", json=body, params=asked)
            assert answer.status_code == 200, answer.text
            told[answer.json()["event_id"]] = ""
        done = 0
        while done < len(told):
            for line in self.get("/gradio_api/queue/data", params={"session_hash": session}).text.splitlines():
                message = json.loads(line.removeprefix("data: ")) if line else {}
                if (event := message.get("event_id")) in told:
                    told[event] += line
                    done += message["msg"] == DONE
        return list(told.values())

    def ask(self, name: str, *data: Any, **asked: str) -> str:
        """What the handler *name* tells."""
        return self.call([(self.space.ids(name)[0], list(data))], **asked)[0]

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """Upload a file, and return what stands for it."""
        answer = self.post("/gradio_api/upload", files={"files": (name, content)})
        assert answer.status_code == 200, answer.text
        return file_data(answer.json()[0], orig_name=name)


def file_data(path: str, **more: Any) -> dict[str, Any]:
    """How the page names a file to the server."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


@contextmanager
def serving_space(hub: Hub, folder: Path, settings: Mapping[str, str]) -> Iterator[Space]:
    """Serve the app as a Space does, whose owner's token is `OWNER`."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    # A connection each: Gradio's own addresses answer some nonsense with 500, and the server then hangs up.
    client = httpx.Client(timeout=30, limits=httpx.Limits(max_keepalive_connections=0))
    space = Space(f"http://127.0.0.1:{port}", folder / "home", folder / "uploads", hub, folder / "log.txt", client)
    (folder / "hf").mkdir()
    (folder / "hf" / "token").write_text(OWNER, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "DPO_HUB"))}
    environment = kept | {
        "SYSTEM": "spaces",
        "SPACE_ID": "ada/space",
        "SPACE_HOST": HOST,
        "OAUTH_CLIENT_ID": "the-client",
        "OAUTH_CLIENT_SECRET": SECRET,
        "OAUTH_SCOPES": "openid profile",
        "OPENID_PROVIDER_URL": hub.endpoint,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(folder / "hf"),
        "HF_TOKEN": OWNER,
        "HUGGING_FACE_HUB_TOKEN": OWNER,
        "DPO_HUB_HOME": str(space.home),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(space.uploads),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    with space.log.open("wb") as log:
        command = [sys.executable, str(ROOT / "space" / "app.py")]
        app = subprocess.Popen(command, cwd=folder, env=environment | settings, stdout=log, stderr=log)
    try:
        with client:
            _await(space, app)
            yield space
    finally:
        app.terminate()
        app.wait(20)


def _await(space: Space, app: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while app.poll() is None and time.monotonic() < until:
        try:
            if space.client.get(f"{space.address}/config").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the app does not answer:\n" + space.log.read_text(encoding="utf-8", errors="replace"))
