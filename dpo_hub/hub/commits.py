"""One commit with everything in it, made only once however many tries it takes. Needs no torch.

The Hub accepts a commit completely or not at all. If its answer is lost, the next try finds the same files there and
adds nothing; if somebody else committed first, nothing of theirs is overwritten.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import GitCommitInfo, RepoFile

from ..errors import PublishError
from .calls import CONNECTION_ERRORS, UnreachableError, describe_error, is_transient, with_retries

log = logging.getLogger(__name__)

MODEL, DATASET, SPACE = "model", "dataset", "space"
BLOCK = 2**20
SHOWN = 3
"""How many of other people's changes a message names."""


@dataclass(frozen=True)
class Repository:
    """The current state of a repository."""

    id: str
    kind: str
    head: str
    """The newest commit."""
    private: bool


def ensure_repository(api: HfApi, repo_id: str, *, kind: str = MODEL, private: bool = True) -> Repository:
    """Create the repository if it does not exist, and return its state.

    Raises:
        PublishError: it is public although *private* was requested.
    """
    with_retries(lambda: api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True))
    there = get_repository(api, repo_id, kind=kind)
    if private and not there.private:
        raise PublishError(
            f"{repo_id} is there already and is public, so nothing was published. Publish it as public "
            "(--public), or under another name."
        )
    if there.private and not private:
        log.warning("%s was there before and is private; its settings on the Hub make it public", repo_id)
    return there


def get_repository(api: HfApi, repo_id: str, *, kind: str = MODEL) -> Repository:
    """Get the current state of a repository."""
    info = with_retries(lambda: api.repo_info(repo_id, repo_type=kind))
    return Repository(repo_id, kind, info.sha or "", bool(info.private))


def last_commit(api: HfApi, of: Repository) -> GitCommitInfo:
    """The newest commit of the repository in the state *of*."""
    return with_retries(lambda: api.list_repo_commits(of.id, repo_type=of.kind, revision=of.head))[0]


def commit_once(
    api: HfApi,
    to: Repository,
    files: Mapping[str, bytes | Path],
    *,
    message: str,
    delete: Sequence[str] = (),
) -> str:
    """Add *files* to the repository and remove those in *delete*, in one commit on top of the head in *to*.

    Files already there with the same content are not sent; if all are, no commit is made.

    Args:
        api: the client.
        to: the state of the repository when the caller decided what to send.
        files: content or the local path of it, by path in the repository.
        message: the commit's title.
        delete: existing files to remove.

    Returns:
        The id of the commit that contains all of it.

    Raises:
        UnreachableError: the Hub stopped answering, and the commit may have been made.
        PublishError: somebody else has changed the repository since, and the message says what; or its card's metadata
            is refused.
    """
    try:
        return with_retries(lambda: _commit(api, to, files, message, delete))
    except (*CONNECTION_ERRORS, HfHubHTTPError) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code == 412:
            return _find_earlier_commit(api, to, files, delete)
        if not is_transient(error):
            raise
        raise UnreachableError(
            f"While {to.id} was being written to, {describe_error(error)}, so it is not known whether all arrived. "
            "Run it again: what is there is not sent twice."
        ) from error


def _commit(api: HfApi, to: Repository, files: Mapping[str, bytes | Path], message: str, delete: Sequence[str]) -> str:
    """Try once; errors that the client wrapped in another type are raised as what they are."""
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    gone = [CommitOperationDelete(path) for path in delete]
    try:
        made = api.create_commit(
            to.id, [*operations, *gone], commit_message=message, repo_type=to.kind, parent_commit=to.head
        )
    except (*CONNECTION_ERRORS, HfHubHTTPError):
        raise
    except ValueError as error:
        if not str(error).startswith("Invalid metadata"):
            raise
        said = " ".join(str(error).split())
        raise PublishError(f"The Hub refuses the card of {to.id}, so nothing was sent: {said}") from error
    except (RuntimeError, PermissionError) as error:  # from a large file; the latter means a refused token
        if isinstance(error.__cause__, (*CONNECTION_ERRORS, HfHubHTTPError)):
            raise error.__cause__ from None
        said = " ".join(str(error.__cause__ or error).split())
        raise PublishError(f"A file for {to.id} could not be uploaded, so nothing was changed there: {said}") from error
    return str(made.oid)


def _find_earlier_commit(api: HfApi, to: Repository, files: Mapping[str, bytes | Path], delete: Sequence[str]) -> str:
    """Find a commit since *to* that contains all *files*: an earlier try made it and its answer was lost.

    Raises:
        PublishError: there is none, so somebody else changed the repository.
        UnreachableError: the Hub does not list the new commits yet.
    """
    newer = newest_commits(api, to)
    for commit in newer:
        if _is_there(file_ids(api, to, commit.commit_id), files, delete):
            return str(commit.commit_id)
    if not newer:  # the listing lags behind the refusal
        raise UnreachableError(
            f"{to.id} was changed meanwhile, but the Hub does not show yet by what. Run it again: what is there is not "
            "sent twice."
        )
    raise PublishError(
        f"{to.id} was changed meanwhile ({_titles_of(newer)}), which touched {_touched(api, to, newer)}. Nothing was "
        "published, and nothing of theirs was overwritten. Look at it, then run it again."
    )


def newest_commits(api: HfApi, of: Repository) -> list[GitCommitInfo]:
    """The commits made after *of* was read, newest first."""
    commits = with_retries(lambda: api.list_repo_commits(of.id, repo_type=of.kind))
    ids = [commit.commit_id for commit in commits]
    return list(commits[: ids.index(of.head)] if of.head in ids else commits[:1])


def _titles_of(commits: Sequence[GitCommitInfo]) -> str:
    return ", ".join(f'"{commit.title}" by {" and ".join(commit.authors)}' for commit in commits[:SHOWN])


def _touched(api: HfApi, since: Repository, newer: Sequence[GitCommitInfo]) -> str:
    then, now = file_ids(api, since, since.head), file_ids(api, since, newer[0].commit_id)
    changed = sorted(path for path in then.keys() | now.keys() if then.get(path) != now.get(path))
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return f"{', '.join(changed[:SHOWN])}{more}" or "no file"


def _is_there(found: Mapping[str, str], files: Mapping[str, bytes | Path], gone: Sequence[str]) -> bool:
    """Whether a repository with the contents *found* has all *files* and none of those that should be *gone*."""
    if found.keys() & set(gone):
        return False
    return all(found.get(path) in content_ids(content) for path, content in files.items())


def content_ids(content: bytes | Path) -> tuple[str, str]:
    """The ids the Hub may give this content: its SHA-256 if stored as a large file, else its git blob id."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    large, small = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        while block := file.read(BLOCK):
            large.update(block)
            small.update(block)
    return large.hexdigest(), small.hexdigest()


def file_ids(api: HfApi, of: Repository, revision: str) -> dict[str, str]:
    """The Hub's id for the content of each file in the repository at *revision*; see `content_ids`."""
    listed = with_retries(lambda: list(api.list_repo_tree(of.id, recursive=True, revision=revision, repo_type=of.kind)))
    files = (entry for entry in listed if isinstance(entry, RepoFile))
    return {entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id for entry in files}
