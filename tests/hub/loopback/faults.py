"""What can befall a request: it is lost, refused for now, answered in part, or the one who asks is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from .state import Hub

LATE = 0.3
"""Seconds that a slow answer takes."""


@dataclass(frozen=True)
class Fault:
    """What happens to the request number *at*, counted from 0, or with *onwards* to all after it too.

    `reset`, and a status such as `429`, come before it is heard, `lost` and `truncated` after, `slow` hurts nobody.
    *do* is called just before the connection is broken.
    """

    at: int
    kind: str
    onwards: bool = False
    do: Callable[[], None] | None = None


class Faults:
    """Counts the requests before *app*, and lets the hub's fault befall the one that it names."""

    def __init__(self, app: Any, hub: Hub) -> None:
        self.app, self.hub = app, hub

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        number, fault = len(self.hub.asked), self.hub.fault
        self.hub.asked.append(f"{scope['method']} {scope['path']}")
        self.hub.authorizations += [value.decode() for name, value in scope["headers"] if name == b"authorization"]
        if fault is None or not (number == fault.at or (fault.onwards and number > fault.at)):
            await self.app(scope, receive, send)
            return
        await self._befall(fault, scope, receive, send)

    async def _befall(self, fault: Fault, scope: Any, receive: Any, send: Any) -> None:
        match fault.kind:
            case "reset":
                _act(fault)
                _hang_up(send)
            case status if status.isdigit():
                wait = {"Retry-After": "0"}
                await JSONResponse({"error": "not now"}, int(status), wait)(scope, receive, send)
            case "slow":
                await asyncio.sleep(LATE)
                await self.app(scope, receive, send)
            case "lost" | "truncated":
                await self.app(scope, receive, _Cut(fault, send))
            case _:
                raise ValueError(fault.kind)


class _Cut:
    """Sends nothing of an answer, or half of it, and hangs up."""

    def __init__(self, fault: Fault, send: Any) -> None:
        self.fault, self.send, self.broken = fault, send, False

    async def __call__(self, message: Any) -> None:
        if self.broken:
            return
        if self.fault.kind == "truncated":
            body = message.get("body", b"")
            await self.send(message | ({"body": body[: len(body) // 2], "more_body": True} if body else {}))
        if message["type"] == "http.response.body" or self.fault.kind == "lost":
            self.broken = True
            _act(self.fault)
            _hang_up(self.send)


def _act(fault: Fault) -> None:
    if fault.do:
        fault.do()


def _hang_up(send: Any) -> None:
    """Break the connection; *send* is a method of what uvicorn holds it by."""
    send.__self__.transport.abort()
