"""Uploading to repositories of any kind, and reading them."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response

from .account import front_matter
from .state import (
    Commit,
    Hub,
    Refusal,
    Repo,
    entry,
    git_oid,
    is_large,
    oid,
    readable,
    sha256,
    user_of,
    visible,
    writable,
)

KINDS = {"models": "", "datasets": "/datasets", "spaces": "/spaces"}
"""What each kind of repository is called in addresses of the API, and what stands before its name in others."""


def build_repositories(app: FastAPI, hub: Hub) -> None:
    _uploads(app, hub)
    _commits(app, hub)
    _reading(app, hub)


def _uploads(app: FastAPI, hub: Hub) -> None:
    async def preupload(owner: str, name: str, request: Request) -> dict[str, Any]:
        there = writable(hub, request, f"{owner}/{name}").head.files
        return {
            "files": [
                {
                    "path": path,
                    "uploadMode": "lfs" if is_large(path) else "regular",
                    "shouldIgnore": False,
                    "oid": oid(path, there[path]) if path in there else None,
                }
                for path in (file["path"] for file in (await request.json())["files"])
            ]
        }

    async def batch(owner: str, name: str, request: Request) -> dict[str, Any]:
        writable(hub, request, f"{owner}/{name}")
        objects = (await request.json())["objects"]
        for item in objects:
            if item["oid"] not in hub.blobs:
                verify = f"{hub.endpoint}{request.url.path.removesuffix('objects/batch')}verify"
                item["actions"] = {
                    "upload": {"href": f"{hub.endpoint}/lfs/{item['oid']}"},
                    "verify": {"href": verify},
                }
        return {"transfer": "basic", "objects": objects}

    @app.put("/lfs/{digest}")
    async def put(digest: str, request: Request) -> None:
        data = await request.body()
        if sha256(data) != digest:
            raise Refusal(400, "The content does not have this SHA-256")
        hub.blobs[digest] = data

    async def verify(owner: str, name: str, request: Request) -> None:
        writable(hub, request, f"{owner}/{name}")
        asked = await request.json()
        if len(hub.blobs.get(asked["oid"], b"")) != asked["size"]:
            raise Refusal(422, "The object is not there or has another size")

    for kind, prefix in KINDS.items():
        lfs = f"{prefix}/{{owner}}/{{name}}.git/info/lfs"
        app.post(f"/api/{kind}/{{owner}}/{{name}}/preupload/{{revision}}")(preupload)
        app.post(f"{lfs}/objects/batch")(batch)
        app.post(f"{lfs}/verify")(verify)


def _commits(app: FastAPI, hub: Hub) -> None:
    async def commit(owner: str, name: str, request: Request) -> dict[str, Any]:
        repo_id = f"{owner}/{name}"
        repo = writable(hub, request, repo_id)
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit", repo.head.oid) != repo.head.oid:
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.head.files)
        for line in lines:
            _apply(hub, line["key"], line["value"], files)
        repo.commits.append(Commit(header["summary"], files, repo.head.oid, author=user_of(hub, request) or ""))
        url = f"{hub.endpoint}/{repo_id}/commit/{repo.head.oid}"
        return {"success": True, "commitOid": repo.head.oid, "commitUrl": url}

    def history(owner: str, name: str, revision: str, request: Request) -> list[dict[str, Any]]:
        commits = visible(hub, request, f"{owner}/{name}").commits
        known = [commit.oid for commit in commits]
        upto = commits if revision == "main" else commits[: known.index(revision) + 1]
        return [
            {"id": commit.oid, "title": commit.summary, "message": "", "date": "2026-01-01T00:00:00.000Z"}
            | {"authors": [{"user": commit.author or owner}]}
            for commit in reversed(upto)
        ]

    def large_files(owner: str, name: str, request: Request) -> list[dict[str, Any]]:
        commits = writable(hub, request, f"{owner}/{name}").commits
        large = {path: data for commit in commits for path, data in commit.files.items() if is_large(path)}
        return [
            {"fileOid": sha256(data), "filename": path, "oid": sha256(data), "pushedAt": "2026-01-01T00:00:00.000Z"}
            | {"ref": "main", "size": len(data)}
            for path, data in large.items()
            if sha256(data) in hub.blobs
        ]

    async def delete_large(owner: str, name: str, request: Request) -> None:
        writable(hub, request, f"{owner}/{name}")
        for digest in (await request.json())["deletions"]["sha"]:
            hub.blobs.pop(digest, None)

    for kind in KINDS:
        app.get(f"/api/{kind}/{{owner}}/{{name}}/lfs-files")(large_files)
        app.post(f"/api/{kind}/{{owner}}/{{name}}/lfs-files/batch")(delete_large)
        app.post(f"/api/{kind}/{{owner}}/{{name}}/commit/{{revision}}")(commit)
        app.get(f"/api/{kind}/{{owner}}/{{name}}/commits/{{revision}}")(history)


def _apply(hub: Hub, key: str, value: dict[str, Any], files: dict[str, bytes]) -> None:
    match key:
        case "file":
            files[value["path"]] = base64.b64decode(value["content"])
        case "lfsFile" if value["oid"] in hub.blobs:
            files[value["path"]] = hub.blobs[value["oid"]]
        case "deletedFile":
            del files[value["path"]]
        case "deletedFolder":
            for path in [path for path in files if path.startswith(f"{value['path'].rstrip('/')}/")]:
                del files[path]
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
        repo = visible(hub, request, f"{owner}/{name}")
        commit = at(repo, revision)
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        about = {"id": f"{owner}/{name}", "sha": commit.oid, "private": repo.private, "tags": []}
        about["lastModified"] = datetime.fromtimestamp(commit.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        about["cardData"] = front_matter(commit.files.get("README.md", b"").decode())
        return about | {"gated": "manual" if repo.gated else False, "siblings": siblings}

    def tree(owner: str, name: str, revision: str, request: Request, folder: str = "") -> list[dict[str, Any]]:
        entries = _entries(at(visible(hub, request, f"{owner}/{name}"), revision).files)
        above = f"{folder}/" if folder else ""
        inside = [entry for path, entry in entries.items() if path.startswith(above)]
        if not inside:
            raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        if request.query_params.get("recursive", "").lower() == "true":
            return inside
        return [entry for entry in inside if "/" not in entry["path"].removeprefix(above)]

    async def paths_info(owner: str, name: str, revision: str, request: Request) -> list[dict[str, Any]]:
        entries = _entries(at(visible(hub, request, f"{owner}/{name}"), revision).files)
        asked = parse_qs((await request.body()).decode())["paths"]
        return [entries[path] for path in asked if path in entries]

    def resolve(owner: str, name: str, revision: str, path: str, request: Request) -> Response:
        commit = at(readable(hub, request, f"{owner}/{name}"), revision)
        if path not in commit.files:
            refusal = Refusal(404, "Entry not found", "EntryNotFound")
            refusal.headers["X-Repo-Commit"] = commit.oid
            raise refusal
        return _file(hub, path, commit, request)

    for kind, prefix in KINDS.items():
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
    shown = {folder: {"type": "directory", "path": folder, "size": 0, "oid": git_oid(b"")} for folder in folders}
    return shown | {path: entry(path, data) for path, data in files.items()}


def _file(hub: Hub, path: str, commit: Commit, request: Request) -> Response:
    data = commit.files[path]
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{git_oid(data)}"', "Accept-Ranges": "bytes"}
    if is_large(path):
        headers |= {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
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
