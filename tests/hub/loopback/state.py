"""What the loopback Hub knows: repositories with their commits, who may do what, and what was asked of it."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fastapi import Request

from .faults import Fault


@dataclass(frozen=True)
class Commit:
    summary: str
    files: dict[str, bytes]
    parent: str = ""
    at: float = field(default_factory=time.time)
    author: str = ""

    @cached_property
    def oid(self) -> str:
        said = [self.parent, self.summary, *(f"{path} {sha256(data)}" for path, data in sorted(self.files.items()))]
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
    settings: dict[str, Any] = field(default_factory=dict)
    """What it was created with, without the values of secrets."""
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    """A Space's, which no address gives back."""
    stage: str = "BUILDING"
    """A Space's."""

    @property
    def head(self) -> Commit:
        return self.commits[-1]


@dataclass
class Hub:
    """What the Hub knows. *users* maps tokens to names; a token in *read_only* may not write.

    *said* is what whoami says of a token beside its user's name: organisations, and what the token may do.
    `sent` lists the files whose content was asked for, and reading one in `broken` is answered 500.
    Who is in `without_money` gets no job, and `jobs` are `jobs.Job` by id.
    *buckets* says of each whether it is private. With `refusing`, a status and words, no repository is made.
    `asked` lists all requests, and `fault` is what befalls one of them.
    """

    users: dict[str, str]
    read_only: frozenset[str] = frozenset()
    repos: dict[str, Repo] = field(default_factory=dict)
    datasets: dict[str, Repo] = field(default_factory=dict)
    spaces: dict[str, Repo] = field(default_factory=dict)
    buckets: dict[str, bool] = field(default_factory=dict)
    refusing: tuple[int, str] | None = None
    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    blobs: dict[str, bytes] = field(default_factory=dict)
    cards: list[dict[str, Any]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    jobs: dict[str, Any] = field(default_factory=dict)
    without_money: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    fault: Fault | None = None
    signing_in: str = ""
    """Who comes to the page that signs in."""
    authorizations: list[str] = field(default_factory=list)
    """The `Authorization` of each request that had one."""
    endpoint: str = ""

    def of_kind(self, kind: str) -> dict[str, Repo]:
        return {"model": self.repos, "dataset": self.datasets, "space": self.spaces}[kind]


class Refusal(Exception):  # noqa: N818  # it is an answer, not a failure of this server
    """An error as the Hub sends it: the body and the `X-Error-*` headers say the same."""

    def __init__(self, status: int, message: str, code: str = "", **more: str) -> None:
        super().__init__(message)
        self.status, self.body = status, {"error": message, **more}
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%b" % (len(data), data), usedforsecurity=False).hexdigest()


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".parquet", ".png", ".pt", ".pth", ".zip"))


def oid(path: str, data: bytes) -> str:
    """What the Hub calls a file's content: SHA-256 for large files, git's blob id for others."""
    return sha256(data) if is_large(path) else git_oid(data)


def entry(path: str, data: bytes) -> dict[str, Any]:
    large = {"lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 130}} if is_large(path) else {}
    return {"type": "file", "path": path, "size": len(data), "oid": git_oid(data), **large}


def token_of(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def user_of(hub: Hub, request: Request) -> str | None:
    token = token_of(request)
    if token and token not in hub.users:
        raise Refusal(401, "Invalid credentials in Authorization header")
    return hub.users.get(token)


def require_writer(hub: Hub, request: Request, owner: str) -> None:
    user = user_of(hub, request)
    if user is None:
        raise Refusal(401, "Invalid username or password.")
    if user != owner or token_of(request) in hub.read_only:
        raise Refusal(403, f'You don\'t have the rights to write to the namespace "{owner}"')


def kind_of(request: Request) -> str:
    """`model`, `dataset` or `space`, by the address asked for."""
    found = re.match(r"/(?:api/)?(dataset|space)s/", request.url.path)
    return found[1] if found else "model"


def visible(hub: Hub, request: Request, repo_id: str) -> Repo:
    """The repository, where the one who asks may see it. The Hub does not tell a hidden one from one that is not."""
    user, repo = user_of(hub, request), hub.of_kind(kind_of(request)).get(repo_id)
    if repo is None or (repo.private and user != repo_id.partition("/")[0]):
        raise Refusal(401 if user is None else 404, "Repository not found", "RepoNotFound")
    return repo


def readable(hub: Hub, request: Request, repo_id: str) -> Repo:
    user, repo = user_of(hub, request), visible(hub, request, repo_id)
    if repo.gated and user != repo_id.partition("/")[0]:
        raise Refusal(401 if user is None else 403, f"Access to {repo_id} is restricted", "GatedRepo")
    return repo


def writable(hub: Hub, request: Request, repo_id: str) -> Repo:
    repo = readable(hub, request, repo_id)
    require_writer(hub, request, repo_id.partition("/")[0])
    return repo
