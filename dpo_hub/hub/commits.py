"""One commit with everything in it, made once however often it has to be tried. Needs no torch.

The Hub takes a commit whole or not at all. Where its answer is lost, the next try finds the same files there and adds
nothing; where somebody else was faster, nothing of theirs is overwritten.
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
from .calls import BROKEN, UnreachableError, briefly, is_transient, with_retries

log = logging.getLogger(__name__)

MODEL, DATASET, SPACE = "model", "dataset", "space"
BLOCK = 2**20
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
    with_retries(lambda: api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True))
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
    info = with_retries(lambda: api.repo_info(repo_id, repo_type=kind))
    return Repository(repo_id, kind, info.sha or "", bool(info.private))


def last_commit(api: HfApi, of: Repository) -> GitCommitInfo:
    """The newest commit of the repository, as *of* has it."""
    return with_retries(lambda: api.list_repo_commits(of.id, repo_type=of.kind, revision=of.head))[0]


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
        delete: files that are there, to take out.

    Returns:
        The id of the commit in which all of it is.

    Raises:
        UnreachableError: the Hub stopped answering, and the commit may have been made.
        PublishError: somebody else has changed the repository since, and the message says what; or the metadata of
            its card are refused.
    """
    try:
        return with_retries(lambda: _commit(api, to, files, message, delete))
    except (*BROKEN, HfHubHTTPError) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code == 412:
            return _made_before(api, to, files, delete)
        if not is_transient(error):
            raise
        raise UnreachableError(
            f"While {to.id} was being written to, {briefly(error)}, so it is not known whether all arrived. Run it "
            "again: what is there is not sent twice."
        ) from error


def _commit(api: HfApi, to: Repository, files: Mapping[str, bytes | Path], message: str, delete: Sequence[str]) -> str:
    """Try once; what the client wraps in errors of other kinds comes out as what it is."""
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    gone = [CommitOperationDelete(path) for path in delete]
    try:
        made = api.create_commit(
            to.id, [*operations, *gone], commit_message=message, repo_type=to.kind, parent_commit=to.head
        )
    except (*BROKEN, HfHubHTTPError):
        raise
    except ValueError as error:
        if not str(error).startswith("Invalid metadata"):
            raise
        said = " ".join(str(error).split())
        raise PublishError(f"The Hub refuses the card of {to.id}, so nothing was sent: {said}") from error
    except (RuntimeError, PermissionError) as error:  # a large file's; the latter says that a token was refused
        if isinstance(error.__cause__, (*BROKEN, HfHubHTTPError)):
            raise error.__cause__ from None
        said = " ".join(str(error.__cause__ or error).split())
        raise PublishError(f"A file for {to.id} could not be uploaded, so nothing was changed there: {said}") from error
    return str(made.oid)


def _made_before(api: HfApi, to: Repository, files: Mapping[str, bytes | Path], delete: Sequence[str]) -> str:
    """Find the commit since *to* that has all *files*: it was made by a try whose answer was lost.

    Raises:
        PublishError: there is none, so it was somebody else who changed the repository.
        UnreachableError: the Hub does not show yet what there is.
    """
    newer = newest_commits(api, to)
    for commit in newer:
        if _is_there(contents(api, to, commit.commit_id), files, delete):
            return str(commit.commit_id)
    if not newer:  # its listing lags behind its refusal
        raise UnreachableError(
            f"{to.id} was changed meanwhile, but the Hub does not show yet by what. Run it again: what is there is not "
            "sent twice."
        )
    raise PublishError(
        f"{to.id} was changed meanwhile ({_titles_of(newer)}), which touched {_touched(api, to, newer)}. Nothing was "
        "published, and nothing of theirs was overwritten. Look at it, then run it again."
    )


def newest_commits(api: HfApi, of: Repository) -> list[GitCommitInfo]:
    """The commits since *of* was looked at, the newest first."""
    commits = with_retries(lambda: api.list_repo_commits(of.id, repo_type=of.kind))
    ids = [commit.commit_id for commit in commits]
    return list(commits[: ids.index(of.head)] if of.head in ids else commits[:1])


def _titles_of(commits: Sequence[GitCommitInfo]) -> str:
    return ", ".join(f'"{commit.title}" by {" and ".join(commit.authors)}' for commit in commits[:SHOWN])


def _touched(api: HfApi, since: Repository, newer: Sequence[GitCommitInfo]) -> str:
    then, now = contents(api, since, since.head), contents(api, since, newer[0].commit_id)
    changed = sorted(path for path in then.keys() | now.keys() if then.get(path) != now.get(path))
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return f"{', '.join(changed[:SHOWN])}{more}" or "no file"


def _is_there(found: Mapping[str, str], files: Mapping[str, bytes | Path], gone: Sequence[str]) -> bool:
    """Whether a repository that holds *found* has all *files* and nothing of what should be *gone*."""
    if found.keys() & set(gone):
        return False
    return all(found.get(path) in ids_of(content) for path, content in files.items())


def ids_of(content: bytes | Path) -> tuple[str, str]:
    """What the Hub may call this content: its SHA-256 where it keeps it as a large file, else git's id of it."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    large, small = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        while block := file.read(BLOCK):
            large.update(block)
            small.update(block)
    return large.hexdigest(), small.hexdigest()


def contents(api: HfApi, of: Repository, revision: str) -> dict[str, str]:
    """What the Hub calls the content of each file of the repository at *revision*; see `ids_of`."""
    listed = with_retries(lambda: list(api.list_repo_tree(of.id, recursive=True, revision=revision, repo_type=of.kind)))
    files = (entry for entry in listed if isinstance(entry, RepoFile))
    return {entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id for entry in files}
