"""What was published is fetched again, as anyone would, and compared with what was meant. Loads no torch itself."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import HfApi

from ..errors import PublishError
from ..run import Run
from .calls import UnreachableError
from .commits import Repository, contents, ids_of
from .models import last_line, run_published

log = logging.getLogger(__name__)

TRIES = 2


@dataclass(frozen=True)
class Proof:
    """What came of it: so many files are the same, and the adapter gave the same logits, or why that was not tried."""

    files: int
    prompts: int = 0
    why_not: str = ""


def prove_adapter(  # noqa: PLR0913  # what was sent where, and what of
    api: HfApi, of: Repository, files: Mapping[str, bytes | Path], commit: str, *, run: Run, compare: bool = True
) -> Proof:
    """Download the adapter's repository into a fresh cache, and compare its files, and what the adapter computes.

    Raises:
        UnreachableError: it could not be downloaded.
        PublishError: it is not what was sent.
    """
    with tempfile.TemporaryDirectory() as cache:
        folder = _download(api, of, commit, Path(cache))
        for path, content in files.items():
            _require_same(of, path, content, folder / path)
        prompts, why_not = _same_logits(run, folder) if compare else (0, "")
    return Proof(len(files), prompts, why_not)


def prove_listed(api: HfApi, of: Repository, files: Mapping[str, bytes | Path], commit: str) -> Proof:
    """Compare the hashes that the Hub has of the files with those of what was sent, without downloading them.

    Raises:
        PublishError: it is not what was sent.
    """
    found = contents(api, of, commit)
    for path, content in files.items():
        if found.get(path) not in ids_of(content):
            raise _different(of, path)
    return Proof(len(files))


def _download(api: HfApi, of: Repository, commit: str, cache: Path) -> Path:
    """Download it; what the client gives up on is tried again, for the commit is certainly there."""
    for left in reversed(range(TRIES)):
        try:
            return Path(api.snapshot_download(of.id, repo_type=of.kind, revision=commit, cache_dir=cache))
        except (httpx2.HTTPError, OSError) as error:  # the client wraps some of its own in OSError
            if not left:
                raise UnreachableError(f"It could not be downloaded again ({error}).") from error
            log.info("downloading %s again: %s", of.id, error)
    raise AssertionError


def _same_logits(run: Run, downloaded: Path) -> tuple[int, str]:
    """Have the models compared in another process: on how many prompts they are the same, or why nobody can say.

    Raises:
        PublishError: they differ.
    """
    if importlib.util.find_spec("torch") is None:
        return 0, "torch is not installed"
    done = run_published("compare", run, downloaded, offline=True)
    if done.returncode:
        return 0, last_line(done.stderr)
    same = json.loads(done.stdout)
    if not all(same):
        raise PublishError(
            f"The adapter fetched from the Hub computes other logits than the one in {run.adapter} on "
            f"{same.count(False)} of {len(same)} prompts. Run it again; if it stays so, tell us."
        )
    return len(same), ""


def _require_same(of: Repository, path: str, sent: bytes | Path, found: Path) -> None:
    if not found.is_file() or _digest(sent) != _digest(found):
        raise _different(of, path)


def _different(of: Repository, path: str) -> PublishError:
    return PublishError(f"{path} in {of.id} on the Hub is not what was sent. Run it again; if it stays so, tell us.")


def _digest(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
