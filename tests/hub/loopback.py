"""A Hugging Face Hub of one's own on 127.0.0.1: as much of the API as publishing, loading and datasets need.

It takes tokens for names and keeps commits in memory, so that a test can look at what arrived.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs

import uvicorn
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)

MACHINES: list[dict[str, Any]] = [
    {"name": "cpu-basic", "prettyName": "CPU Basic", "cpu": "2 vCPU", "ram": "16 GB", "accelerator": None}
    | {"unitCostMicroUSD": 167, "unitCostUSD": 0.000167, "unitLabel": "minute"},
    {"name": "a10g-small", "prettyName": "Nvidia A10G - small", "cpu": "4 vCPU", "ram": "15 GB"}
    | {"accelerator": {"type": "gpu", "model": "A10G", "quantity": "1", "vram": "24 GB", "manufacturer": "Nvidia"}}
    | {"unitCostMicroUSD": 16667, "unitCostUSD": 0.016667, "unitLabel": "minute"},
]
"""Machines for jobs and Spaces, as the Hub describes them."""


@dataclass(frozen=True)
class Commit:
    summary: str
    files: dict[str, bytes]
    parent: str = ""

    @property
    def oid(self) -> str:
        said = [self.parent, self.summary, *(f"{path} {_sha256(data)}" for path, data in sorted(self.files.items()))]
        return hashlib.sha1("\n".join(said).encode(), usedforsecurity=False).hexdigest()


@dataclass
class Repo:
    """A repository begins with one commit, as on the Hub, and `commits[-1]` is its head.

    Anyone sees that a *gated* one is there, but only its owner reads its files.
    """

    private: bool
    commits: list[Commit] = field(
        default_factory=lambda: [Commit("initial commit", {".gitattributes": b"*.safetensors lfs"})]
    )
    gated: bool = False

    @property
    def head(self) -> Commit:
        return self.commits[-1]


@dataclass
class Hub:
    """What the Hub knows. *users* maps tokens to names; a token in *read_only* may not write.

    *said* is what whoami says of a token beside its user's name: organisations, and what the token may do.
    `sent` lists the files whose content was asked for, and reading one in `broken` is answered 500.
    """

    users: dict[str, str]
    read_only: frozenset[str] = frozenset()
    repos: dict[str, Repo] = field(default_factory=dict)
    datasets: dict[str, Repo] = field(default_factory=dict)
    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    blobs: dict[str, bytes] = field(default_factory=dict)
    cards: list[dict[str, Any]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    endpoint: str = ""


class Refusal(Exception):  # noqa: N818  # it is an answer, not a failure of this server
    """An error as the Hub sends it: the body and the `X-Error-*` headers say the same."""

    def __init__(self, status: int, message: str, code: str = "", **more: str) -> None:
        super().__init__(message)
        self.status, self.body = status, {"error": message, **more}
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%b" % (len(data), data), usedforsecurity=False).hexdigest()


def _is_large(path: str) -> bool:
    return path.endswith(".safetensors")


def _oid(path: str, data: bytes) -> str:
    """What the Hub calls a file's content: SHA-256 for large files, git's blob id for others."""
    return _sha256(data) if _is_large(path) else _git_oid(data)


def _entry(path: str, data: bytes) -> dict[str, Any]:
    large = {"lfs": {"oid": _sha256(data), "size": len(data), "pointerSize": 130}} if _is_large(path) else {}
    return {"type": "file", "path": path, "size": len(data), "oid": _git_oid(data), **large}


def _token(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def _user(hub: Hub, request: Request) -> str | None:
    token = _token(request)
    if token and token not in hub.users:
        raise Refusal(401, "Invalid credentials in Authorization header")
    return hub.users.get(token)


def _require_writer(hub: Hub, request: Request, owner: str) -> None:
    user = _user(hub, request)
    if user is None:
        raise Refusal(401, "Invalid username or password.")
    if user != owner or _token(request) in hub.read_only:
        raise Refusal(403, f'You don\'t have the rights to write to the namespace "{owner}"')


def _visible(hub: Hub, request: Request, repo_id: str) -> Repo:
    """The repository, where the one who asks may see it. The Hub does not tell a hidden one from one that is not."""
    datasets = request.url.path.startswith(("/api/datasets/", "/datasets/"))
    user, repo = _user(hub, request), (hub.datasets if datasets else hub.repos).get(repo_id)
    if repo is None or (repo.private and user != repo_id.partition("/")[0]):
        raise Refusal(401 if user is None else 404, "Repository not found", "RepoNotFound")
    return repo


def _readable(hub: Hub, request: Request, repo_id: str) -> Repo:
    user, repo = _user(hub, request), _visible(hub, request, repo_id)
    if repo.gated and user != repo_id.partition("/")[0]:
        raise Refusal(401 if user is None else 403, f"Access to {repo_id} is restricted", "GatedRepo")
    return repo


def _writable(hub: Hub, request: Request, repo_id: str) -> Repo:
    repo = _readable(hub, request, repo_id)
    _require_writer(hub, request, repo_id.partition("/")[0])
    return repo


def build(hub: Hub) -> FastAPI:
    """Put the Hub's addresses before what *hub* knows."""
    app = FastAPI(openapi_url=None)

    @app.exception_handler(Refusal)
    def refuse(request: Request, refusal: Refusal) -> Response:
        return JSONResponse(refusal.body, refusal.status, refusal.headers)

    _account(app, hub)
    _uploads(app, hub)
    _commits(app, hub)
    _reading(app, hub)

    @app.exception_handler(404)
    @app.exception_handler(405)
    def unknown(request: Request, error: Exception) -> Response:
        """Note what this Hub does not know, and what only a proxy is asked."""
        hub.unknown.append(f"{request.method} {request.scope['path']}")
        return refuse(request, Refusal(404, "This loopback Hub has no such address", "EntryNotFound"))

    return app


def _account(app: FastAPI, hub: Hub) -> None:
    @app.get("/api/whoami-v2")
    def whoami(request: Request) -> dict[str, Any]:
        user = _user(hub, request)
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        role = "read" if _token(request) in hub.read_only else "write"
        auth = {"type": "access_token", "accessToken": {"displayName": "laptop", "role": role}}
        return {"type": "user", "name": user, "orgs": [], "auth": auth} | hub.said.get(_token(request), {})

    @app.get("/api/models/{owner}/{name}/auth-check")
    def may_read(owner: str, name: str, request: Request) -> None:
        _readable(hub, request, f"{owner}/{name}")

    @app.get("/api/models/{owner}/{name}/auth-check/write")
    def may_write(owner: str, name: str, request: Request) -> None:
        _writable(hub, request, f"{owner}/{name}")

    @app.get("/api/jobs/hardware")
    def jobs_hardware() -> list[dict[str, Any]]:
        return MACHINES

    @app.get("/api/spaces/hardware")
    def spaces_hardware() -> list[dict[str, Any]]:
        return MACHINES[:1]

    @app.post("/api/repos/create")
    async def create(request: Request) -> Response:
        asked = await request.json()
        owner = asked["organization"] or _user(hub, request) or ""
        _require_writer(hub, request, owner)
        repo_id = f"{owner}/{asked['name']}"
        url = {"url": f"{hub.endpoint}/{repo_id}"}
        if repo_id in hub.repos:
            raise Refusal(409, "You already created this model repo", **url)
        hub.repos[repo_id] = Repo(private=asked.get("visibility") == "private")
        return JSONResponse(url)

    @app.post("/api/validate-yaml")
    async def validate(request: Request) -> Response:
        found = FRONT_MATTER.match((await request.json())["content"])
        try:
            card = yaml.safe_load(found[1]) if found else None
        except yaml.YAMLError as error:
            return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
        if not isinstance(card, dict):
            return JSONResponse({"errors": [], "warnings": [{"message": "empty or missing yaml metadata"}]})
        hub.cards.append(card)
        return JSONResponse({"errors": [], "warnings": []})


def _uploads(app: FastAPI, hub: Hub) -> None:
    @app.post("/api/models/{owner}/{name}/preupload/{revision}")
    async def preupload(owner: str, name: str, request: Request) -> dict[str, Any]:
        there = _writable(hub, request, f"{owner}/{name}").head.files
        return {
            "files": [
                {
                    "path": path,
                    "uploadMode": "lfs" if _is_large(path) else "regular",
                    "shouldIgnore": False,
                    "oid": _oid(path, there[path]) if path in there else None,
                }
                for path in (file["path"] for file in (await request.json())["files"])
            ]
        }

    @app.post("/{owner}/{name}.git/info/lfs/objects/batch")
    async def batch(owner: str, name: str, request: Request) -> dict[str, Any]:
        _writable(hub, request, f"{owner}/{name}")
        objects = (await request.json())["objects"]
        for item in objects:
            if item["oid"] not in hub.blobs:
                upload, verify = (
                    f"{hub.endpoint}/lfs/{item['oid']}",
                    f"{hub.endpoint}/{owner}/{name}.git/info/lfs/verify",
                )
                item["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
        return {"transfer": "basic", "objects": objects}

    @app.put("/lfs/{oid}")
    async def put(oid: str, request: Request) -> None:
        data = await request.body()
        if _sha256(data) != oid:
            raise Refusal(400, "The content does not have this SHA-256")
        hub.blobs[oid] = data

    @app.post("/{owner}/{name}.git/info/lfs/verify")
    async def verify(owner: str, name: str, request: Request) -> None:
        _writable(hub, request, f"{owner}/{name}")
        asked = await request.json()
        if len(hub.blobs.get(asked["oid"], b"")) != asked["size"]:
            raise Refusal(422, "The object is not there or has another size")


def _commits(app: FastAPI, hub: Hub) -> None:
    @app.post("/api/models/{owner}/{name}/commit/{revision}")
    async def commit(owner: str, name: str, request: Request) -> dict[str, Any]:
        repo_id = f"{owner}/{name}"
        repo = _writable(hub, request, repo_id)
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit", repo.head.oid) != repo.head.oid:
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.head.files)
        for line in lines:
            _apply(hub, line["key"], line["value"], files)
        repo.commits.append(Commit(header["summary"], files, repo.head.oid))
        url = f"{hub.endpoint}/{repo_id}/commit/{repo.head.oid}"
        return {"success": True, "commitOid": repo.head.oid, "commitUrl": url}


def _apply(hub: Hub, key: str, value: dict[str, Any], files: dict[str, bytes]) -> None:
    match key:
        case "file":
            files[value["path"]] = base64.b64decode(value["content"])
        case "lfsFile" if value["oid"] in hub.blobs:
            files[value["path"]] = hub.blobs[value["oid"]]
        case "deletedFile":
            del files[value["path"]]
        case "header":
            pass
        case _:
            raise Refusal(400, f"Cannot commit {key} {value}")


def _reading(app: FastAPI, hub: Hub) -> None:
    def at(repo: Repo, revision: str) -> Commit:
        found = repo.head if revision == "main" else next((c for c in repo.commits if c.oid == revision), None)
        if found is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def info(owner: str, name: str, request: Request, revision: str = "main") -> dict[str, Any]:
        repo = _visible(hub, request, f"{owner}/{name}")
        commit = at(repo, revision)
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        about = {"id": f"{owner}/{name}", "sha": commit.oid, "private": repo.private, "tags": []}
        return about | {"gated": "manual" if repo.gated else False, "siblings": siblings}

    def tree(owner: str, name: str, revision: str, request: Request, folder: str = "") -> list[dict[str, Any]]:
        entries = _entries(at(_visible(hub, request, f"{owner}/{name}"), revision).files)
        above = f"{folder}/" if folder else ""
        inside = [entry for path, entry in entries.items() if path.startswith(above)]
        if not inside:
            raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        if request.query_params.get("recursive", "").lower() == "true":
            return inside
        return [entry for entry in inside if "/" not in entry["path"].removeprefix(above)]

    async def paths_info(owner: str, name: str, revision: str, request: Request) -> list[dict[str, Any]]:
        entries = _entries(at(_visible(hub, request, f"{owner}/{name}"), revision).files)
        asked = parse_qs((await request.body()).decode())["paths"]
        return [entries[path] for path in asked if path in entries]

    def resolve(owner: str, name: str, revision: str, path: str, request: Request) -> Response:
        commit = at(_readable(hub, request, f"{owner}/{name}"), revision)
        if path not in commit.files:
            refusal = Refusal(404, "Entry not found", "EntryNotFound")
            refusal.headers["X-Repo-Commit"] = commit.oid
            raise refusal
        return _file(hub, path, commit, request)

    for kind, prefix in (("models", ""), ("datasets", "/datasets")):
        repo, files = f"/api/{kind}/{{owner}}/{{name}}", f"{prefix}/{{owner}}/{{name}}"
        app.get(repo)(info)
        app.get(repo + "/revision/{revision}")(info)
        app.get(repo + "/tree/{revision}")(tree)
        app.get(repo + "/tree/{revision}/{folder:path}")(tree)
        app.post(repo + "/paths-info/{revision}")(paths_info)
        app.api_route(files + "/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])(resolve)


def _entries(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """All files and the folders that they lie in, as a listing shows them."""
    folders = {str(folder) for path in files for folder in PurePosixPath(path).parents[:-1]}
    shown = {folder: {"type": "directory", "path": folder, "size": 0, "oid": _git_oid(b"")} for folder in folders}
    return shown | {path: _entry(path, data) for path, data in files.items()}


def _file(hub: Hub, path: str, commit: Commit, request: Request) -> Response:
    data = commit.files[path]
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{_git_oid(data)}"', "Accept-Ranges": "bytes"}
    if _is_large(path):
        headers |= {"X-Linked-Etag": f'"{_sha256(data)}"', "X-Linked-Size": str(len(data))}
    if request.method == "GET":
        hub.sent.append(path)
        if path in hub.broken:
            # The client tries five times more, and as soon as this says, instead of waiting longer and longer.
            return Response(status_code=500, headers={"Retry-After": "0"})
    if span := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", "")):
        first, last = int(span[1]), min(int(span[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return Response(data[first : last + 1], 206 if first <= last else 416, headers)
    return Response(data, media_type="application/octet-stream", headers=headers)


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
    listening = socket.create_server(("127.0.0.1", 0))
    hub.endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = _Server(uvicorn.Config(build(hub), http="h11", ws="none", lifespan="off", log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        assert server.ready.wait(30), "the loopback Hub did not start"
        yield hub
    finally:
        server.should_exit = True
        thread.join()
