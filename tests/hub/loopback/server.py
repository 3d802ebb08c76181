"""The loopback Hub as a server on a free port of 127.0.0.1."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from .account import build_account
from .faults import Faults
from .jobs import build_jobs, end_all
from .oidc import build_oidc
from .repositories import build_repositories
from .spaces import build_spaces
from .state import Hub, Refusal


def build(hub: Hub) -> FastAPI:
    """Put the Hub's addresses before what *hub* knows."""
    app = FastAPI(openapi_url=None)

    @app.exception_handler(Refusal)
    def refuse(request: Request, refusal: Refusal) -> Response:
        return JSONResponse(refusal.body, refusal.status, refusal.headers)

    build_account(app, hub)
    build_repositories(app, hub)
    build_jobs(app, hub)
    build_spaces(app, hub)
    build_oidc(app, hub)

    @app.exception_handler(404)
    @app.exception_handler(405)
    def unknown(request: Request, error: Exception) -> Response:
        """Note what this Hub does not know, and what only a proxy is asked."""
        hub.unknown.append(f"{request.method} {request.scope['path']}")
        return refuse(request, Refusal(404, "This loopback Hub has no such address", "EntryNotFound"))

    return app


_ONE_AT_A_TIME = threading.Lock()
"""Several threads may serve Hubs of their own, but FastAPI is not made to be set up by several."""


class _Server(uvicorn.Server):
    """Says when it answers, so that nobody has to ask again and again."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve *hub* on a free port of 127.0.0.1 and set its endpoint."""
    with _ONE_AT_A_TIME:
        app = Faults(build(hub), hub)
    listening = socket.create_server(("127.0.0.1", 0))
    hub.endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = _Server(uvicorn.Config(app, http="h11", ws="none", lifespan="off", log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        assert server.ready.wait(30), "the loopback Hub did not start"
        yield hub
    finally:
        end_all(hub)
        server.should_exit = True
        thread.join()
