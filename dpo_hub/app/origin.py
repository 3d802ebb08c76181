"""Only the app's own page, and programs, may send requests to a Space as a visitor.

Gradio on a Space also answers pages of other sites, and their requests carry the session cookie.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .visitors import on_space


class SameOriginMiddleware:
    """Refuse requests from other sites' pages to a Space; programs send no Origin header."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and on_space() and _is_foreign(Headers(scope=scope)):
            await PlainTextResponse("This is for the app's own page.", 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _is_foreign(headers: Headers) -> bool:
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")
