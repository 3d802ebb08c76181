"""A visitor's private files, served to nobody else: `download/run/ID` and `download/file/ID`. Knows nothing of Gradio.

Gradio's own file URLs are open to anyone who knows them, so no run or preference file is served through those.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ..errors import DPOHubError, RunError, explaining_disk_full
from .handlers.files import find
from .visitors import visitor

PARTS = ("adapter", "README.md", "recipe.json", "report.json", "evaluation.json", "metrics.jsonl", "curves.png")
"""The parts of a run's folder that its zip contains."""
BLOCK = 2**18
OWN = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
"""Headers of each file: it is for this visitor only, and not to be shown as a page."""


def _run(request: Request) -> Response:
    found = visitor(request.scope.get("session")).run(request.path_params["name"])
    if found is None:
        raise RunError("There is no such run here.")
    packed = _packed(found.require_finished().path)
    headers = OWN | {
        "Content-Disposition": f'attachment; filename="{found.id}.zip"',
        "Content-Length": str(os.fstat(packed.fileno()).st_size),
    }
    return StreamingResponse(_blocks(packed), media_type="application/zip", headers=headers)


def _packed(folder: Path) -> IO[bytes]:
    """A zip of the adapter in *folder* and the files about it, in an unnamed temporary file that needs no cleanup.

    Raises:
        DiskFullError: there is no room for it.
    """
    packed = tempfile.TemporaryFile()  # noqa: SIM115  # closed by the function that sends it
    with explaining_disk_full(tempfile.gettempdir()), zipfile.ZipFile(packed, "w", strict_timestamps=False) as archive:
        for part in (path for name in PARTS if (path := folder / name).exists()):
            for path in sorted(part.rglob("*")) if part.is_dir() else [part]:
                archive.write(path, path.relative_to(folder))
    packed.seek(0)
    return packed


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        yield from iter(lambda: file.read(BLOCK), b"")


def _file(request: Request) -> Response:
    source = find(visitor(request.scope.get("session")).shelf, request.path_params["name"])
    if not Path(source.where).is_file():
        raise RunError("A dataset on the Hub is downloaded there.")
    return FileResponse(source.where, filename=source.name, headers=OWN)


def _explaining_errors(handler: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Answer 404 with a sentence if there is nothing for this visitor."""

    def telling(request: Request) -> Response:
        try:
            return handler(request)
        except DPOHubError as error:
            return PlainTextResponse(str(error), 404, headers=OWN)

    return telling


ROUTES = [
    Route("/download/run/{name}", _explaining_errors(_run)),
    Route("/download/file/{name}", _explaining_errors(_file)),
]
