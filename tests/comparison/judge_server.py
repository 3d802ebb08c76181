"""A small OpenAI-compatible server on loopback, whose judge can be fair, partial, slow, broken, or die."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, str, int], str | int | None]
"""Takes both replies and the request's number, from 1; gives a text, a status, or None to cut the connection."""
_PARTS = re.compile(r"\[(\w+) (?:A|B)\]\n(.*?)\n\[\1 end\]", re.DOTALL)


@dataclass
class JudgeServer:
    """What it was asked, and with which headers."""

    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def judging(answer: Answer, *, refused: str = "") -> Iterator[JudgeServer]:
    """Serve until the context ends; what asks with the field *refused* is refused, and its key told."""
    lock, released = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                told.asked.append(body)
                told.headers.append(dict(self.headers))
                number = len(told.asked)
            (_, a), (_, b) = _PARTS.findall(body["messages"][1]["content"])
            said = 400 if refused in body else answer(a, b, number)
            if said == "(nothing)":
                released.wait(30)
            elif said is None:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            else:
                self._answer(said)

        def _answer(self, said: str | int) -> None:
            message = {"role": "assistant", "content": said}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            whole = {"id": "1", "created": 0, "model": "m", "system_fingerprint": "", "choices": [choice]}
            why = {"message": f"No {refused} for {self.headers['Authorization']}"} if refused else "not now"
            body = json.dumps(whole if isinstance(said, str) else {"error": why}).encode()
            body = {"(page)": b"<html>Welcome</html>", "(empty)": b"{}"}.get(said, body)
            self.send_response(200 if isinstance(said, str) else said)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if not isinstance(said, str):
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told = JudgeServer(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield told
    finally:
        released.set()
        server.shutdown()
        thread.join()
        server.server_close()
