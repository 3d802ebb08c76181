"""One commit with everything in it, made once however often it has to be tried. Needs no torch.

The Hub takes a commit whole or not at all. Where its answer is lost, the next try finds the same files there and adds
nothing; where somebody else was faster, nothing of theirs is overwritten.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from ..errors import PublishError
from .calls import patiently

log = logging.getLogger(__name__)

MODEL, DATASET, SPACE = "model", "dataset", "space"
SHOWN = 3
"""Changes of others that are named."""


@dataclass(frozen=True)
class Repository:
    """A repository as it stands."""

    id: str
    kind: str
    head: str
    """The newest commit."""
    private: bool


def ensure_repository(api: HfApi, repo_id: str, *, kind: str = MODEL, private: bool = True) -> Repository:
    """Make the repository where it is not there yet, and say how it stands.

    Raises:
        PublishError: it is public although *private* was asked for.
    """
    patiently(lambda: api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True))
    there = look_at(api, repo_id, kind=kind)
    if private and not there.private:
        raise PublishError(
            f"{repo_id} is there already and is public, so nothing was published. Publish it as public "
            "(--public), or under another name."
        )
    if there.private and not private:
        log.warning("%s was there before and is private; its settings on the Hub make it public", repo_id)
    return there


def look_at(api: HfApi, repo_id: str, *, kind: str = MODEL) -> Repository:
    """Ask how a repository stands."""
    info = patiently(lambda: api.repo_info(repo_id, repo_type=kind))
    return Repository(repo_id, kind, info.sha or "", bool(info.private))


def commit_once(
    api: HfApi,
    to: Repository,
    files: Mapping[str, bytes | Path],
    *,
    message: str,
    delete: Sequence[str] = (),
) -> str:
    """Put *files* into the repository and take *delete* out of it, in one commit on top of what *to* says is there.

    Files that are there already with the same content are not sent, and where all are, no commit is made.

    Args:
        api: the client.
        to: the repository as it stood when the caller decided what to send.
        files: content or the path of it, by path in the repository.
        message: the commit's title.
        delete: files to take out; with `/` at the end, folders.

    Returns:
        The id of the newest commit, in which all of it is.

    Raises:
        PublishError: somebody else has changed the repository since, and the message says what; or the metadata of
            its card are refused.
    """

    def send() -> str:
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        gone = [CommitOperationDelete(path) for path in delete]
        try:
            made = api.create_commit(
                to.id, [*operations, *gone], commit_message=message, repo_type=to.kind, parent_commit=to.head
            )
        except RuntimeError as error:  # so the client wraps what befell a large file
            raise error.__cause__ or error from None
        except ValueError as error:  # so it tells that the Hub takes offence at a card, before anything is sent
            raise PublishError(f"The Hub refuses the card of {to.id}, so nothing was sent: {error}") from error
        return str(made.oid)

    try:
        return patiently(send)
    except HfHubHTTPError as error:
        if error.response.status_code != 412:
            raise
        head = look_at(api, to.id, kind=to.kind).head
        if _is_there(contents(api, to, head), files, delete):
            return head  # it was this commit that was made, and only the answer that was lost
        raise PublishError(_what_changed(api, to)) from error


def _is_there(found: Mapping[str, str], files: Mapping[str, bytes | Path], gone: Sequence[str]) -> bool:
    """Whether a repository that holds *found* has all *files* and nothing of what should be *gone*."""
    if any(path == name or (name.endswith("/") and path.startswith(name)) for path in found for name in gone):
        return False
    return all(found.get(path) in ids_of(content) for path, content in files.items())


def ids_of(content: bytes | Path) -> tuple[str, str]:
    """What the Hub may call this content: its SHA-256 where it keeps it as a large file, else git's id of it."""
    data = content if isinstance(content, bytes) else content.read_bytes()
    return hashlib.sha256(data).hexdigest(), git_hash(data)


def contents(api: HfApi, of: Repository, revision: str) -> dict[str, str]:
    """What the Hub calls the content of each file of the repository at *revision*; see `ids_of`."""
    listed = patiently(lambda: list(api.list_repo_tree(of.id, recursive=True, revision=revision, repo_type=of.kind)))
    files = (entry for entry in listed if isinstance(entry, RepoFile))
    return {entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id for entry in files}


def _what_changed(api: HfApi, since: Repository) -> str:
    """Say who has changed what in the repository meanwhile."""
    commits = patiently(lambda: api.list_repo_commits(since.id, repo_type=since.kind))
    ids = [commit.commit_id for commit in commits]
    newer = commits[: ids.index(since.head)] if since.head in ids else commits[:1]
    by = ", ".join(f'"{commit.title}" by {" and ".join(commit.authors)}' for commit in newer[:SHOWN])
    then, now = (contents(api, since, at) for at in (since.head, "main"))
    changed = sorted(path for path in then.keys() | now.keys() if then.get(path) != now.get(path))
    files = ", ".join(changed[:SHOWN]) + (f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else "")
    return (
        f"{since.id} was changed meanwhile ({by}), which touched {files or 'no file'}. Nothing was published, and "
        "nothing of theirs was overwritten. Look at it, then run it again."
    )
