"""Download what was published, as anyone would, and compare it with what was sent. Loads no torch itself."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import LocalEntryNotFoundError

from ..errors import PublishError
from ..runs.run import Run
from .calls import with_retries
from .commits import Repository, content_ids, file_ids
from .models import EXPECTED, failure_reason, has_torch, run_published


@dataclass(frozen=True)
class Proof:
    """The result: how many files and how many prompts' logits are the same, or why logits were not compared."""

    files: int
    prompts: int = 0
    why_not: str = ""

    def sentence(self) -> str:
        """The result as a sentence."""
        files = f"{self.files} files are on the Hub as they are here"
        if self.prompts:
            return f"{files}, and the adapter fetched from there gives the same logits on {self.prompts} prompts."
        return f"{files}.{f' Logits were not compared: {self.why_not}' if self.why_not else ''}"


def verify_adapter(  # noqa: PLR0913  # what was sent, where, and from which run
    api: HfApi, of: Repository, files: Mapping[str, bytes | Path], commit: str, *, run: Run, compare: bool = True
) -> Proof:
    """Download the adapter's repository into a fresh cache, and compare its files and the adapter's logits.

    Raises:
        UnreachableError: it could not be downloaded.
        PublishError: it is not what was sent.
    """
    with tempfile.TemporaryDirectory() as cache:
        folder = _download(api, of, files, commit, Path(cache))
        for path, content in files.items():
            _require_same(of, path, content, folder / path)
        prompts, why_not = _same_logits(run, folder) if compare else (0, "")
    return Proof(len(files), prompts, why_not)


def verify_hashes(api: HfApi, of: Repository, files: Mapping[str, bytes | Path], commit: str) -> Proof:
    """Compare the Hub's hashes of the files with those of what was sent, without downloading them.

    Raises:
        PublishError: they are not what was sent.
    """
    found = file_ids(api, of, commit)
    for path, content in files.items():
        if found.get(path) not in content_ids(content):
            raise _different(of, path)
    return Proof(len(files))


def _download(api: HfApi, of: Repository, files: Iterable[str], commit: str, cache: Path) -> Path:
    """Download *files*, and retry if the client gives up, because the commit certainly exists."""

    def download() -> Path:
        try:
            return Path(
                api.snapshot_download(
                    of.id, repo_type=of.kind, revision=commit, cache_dir=cache, allow_patterns=list(files)
                )
            )
        except (LocalEntryNotFoundError, RuntimeError, OSError) as error:
            if getattr(error, "errno", None):  # a problem of this machine, such as a full disk
                raise
            raise ConnectionError("the download broke off") from error  # whatever error the client raised

    return with_retries(download, tries=2)


def _same_logits(run: Run, downloaded: Path) -> tuple[int, str]:
    """Compare the models in another process: on how many prompts they agree, or why that cannot be checked.

    Raises:
        PublishError: they differ, or the adapter cannot be loaded.
    """
    if not has_torch():
        return 0, "torch is not installed."
    done = run_published("compare", run, downloaded, HF_HUB_OFFLINE="1")
    if done.returncode == EXPECTED or done.returncode < 0:
        return 0, failure_reason(done)
    if done.returncode:
        raise PublishError(f"The adapter fetched from the Hub could not be put to work. {failure_reason(done)}")
    same = json.loads(done.stdout.strip().rpartition("\n")[2])
    if not all(same):
        raise PublishError(
            f"The adapter fetched from the Hub computes other logits than the one in {run.adapter} on "
            f"{same.count(False)} of {len(same)} prompts. Run it again; if it stays so, tell us."
        )
    return len(same), ""


def _require_same(of: Repository, path: str, sent: bytes | Path, found: Path) -> None:
    if not found.is_file() or content_ids(sent) != content_ids(found):
        raise _different(of, path)


def _different(of: Repository, path: str) -> PublishError:
    return PublishError(f"{path} in {of.id} on the Hub is not what was sent. Run it again; if it stays so, tell us.")
