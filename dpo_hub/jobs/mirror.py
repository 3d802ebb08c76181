"""A run's folder mirrored in a private dataset: the run itself under `run/`, and beside it the package that trains it.

The machine that works on the run pushes; all others only read, or ask it to stop by adding `.stop`. Needs no torch.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import LocalEntryNotFoundError

from ..errors import PublishError
from ..hub.calls import UnreachableError, with_retries
from ..hub.commits import DATASET, Repository, commit_once, content_ids, file_ids
from ..runs.run import REMOTE, Run

RUN, PACKAGE, STOP = "run/", "package.zip", ".stop"
CHECKPOINTS = f"{RUN}checkpoints/"
LABEL = "dpo-hub"
"""The label by which jobs are found; its value is the run's id."""
PROGRESS_FILES = (
    "state.json",
    "recipe.json",
    "report.json",
    "evaluation.json",
    "metrics.jsonl",
    "evaluations.jsonl",
    "samples.jsonl",
    "log.txt",
)
"""The files that show a run's progress."""
_STEP = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Mirror:
    """The state of the repository: its files, and the time of the newest commit, in seconds since the epoch."""

    repository: Repository
    files: frozenset[str]
    changed: float

    @property
    def step(self) -> int:
        """The step after which its checkpoint was saved, 0 if it has none."""
        return max((int(found[1]) for path in self.files if (found := _STEP.search(path))), default=0)


def get_mirror(api: HfApi, repo_id: str) -> Mirror:
    """Get the current state of the repository."""
    info = with_retries(lambda: api.dataset_info(repo_id))
    changed = info.last_modified.timestamp() if info.last_modified else 0.0
    files = frozenset(sibling.rfilename for sibling in info.siblings or ())
    return Mirror(Repository(repo_id, DATASET, info.sha or "", bool(info.private)), files, changed)


def push(api: HfApi, run: Run, onto: Mirror) -> None:
    """Make the mirror match the run's folder, with only its newest checkpoint, in one commit.

    Earlier checkpoints are deleted permanently, or a long run would fill the account's storage.

    Raises:
        OSError: a file disappeared while it was copied. The next push gets what replaced it.
        PublishError: somebody else pushed meanwhile.
    """
    with tempfile.TemporaryDirectory(dir=run.path.parent, prefix=".push-") as folder:
        copy_whole(run, Path(folder))
        copies = (path for path in Path(folder).rglob("*") if path.is_file())
        files: dict[str, bytes | Path] = {f"{RUN}{path.relative_to(folder).as_posix()}": path for path in copies}
        gone = sorted(path for path in onto.files if path.startswith(RUN) and path not in files)
        step = int(run.last_metrics.get("step", 0))
        message = f"{run.written_state.status.capitalize()}, step {step}"
        commit_once(api, onto.repository, files, message=message, delete=gone)
        if any(path.startswith(CHECKPOINTS) for path in gone):
            _forget_checkpoints(api, onto.repository, {content_ids(content)[0] for content in files.values()})


def _forget_checkpoints(api: HfApi, of: Repository, kept: Set[str]) -> None:
    """Permanently delete the checkpoints' large files, except the SHA-256s *kept*; old commits are never read."""
    large = with_retries(lambda: list(api.list_lfs_files(of.id, repo_type=DATASET)))
    old = [file for file in large if file.filename.startswith(CHECKPOINTS) and file.file_oid not in kept]
    with_retries(lambda: api.permanently_delete_lfs_files(of.id, old, rewrite_history=False, repo_type=DATASET))


def copy_whole(run: Run, to: Path) -> None:
    """Copy what is to be pushed, while other processes write there.

    The checkpoint is copied first, so that the measurements reach at least as far as it does.

    Raises:
        OSError: a file disappeared while it was copied.
    """
    finished, checkpoints = _finished(run), _checkpoints(run)
    if checkpoints and not finished:
        shutil.copytree(checkpoints[-1], to / checkpoints[-1].relative_to(run.path))
    shutil.copytree(run.path, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "checkpoints", REMOTE))
    # Two checkpoints are kept, so the copy is complete if at most one more was saved; a finished run keeps none.
    if _finished(run) != finished or (checkpoints and not finished and checkpoints[-1] not in _checkpoints(run)[-2:]):
        raise FileNotFoundError(f"The checkpoint of {run.id} went while it was copied.")


def _finished(run: Run) -> bool:
    return run.written_state.status == "finished"


def _checkpoints(run: Run) -> list[Path]:
    """The run's checkpoints, newest last."""
    return sorted((run.path / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def pull(api: HfApi, mirror: Mirror, to: Path, *names: str) -> None:
    """Download the run's files, or only *names*, into the folder *to*; if *to* does not exist, it appears complete.

    Raises:
        PublishError: a downloaded file is not what the Hub has.
    """
    at = mirror.repository
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".pull-") as folder:
        patterns = [f"{RUN}{name}" for name in names or ("*",)]
        _downloaded(
            lambda: api.snapshot_download(
                at.id, repo_type=DATASET, revision=at.head, local_dir=folder, allow_patterns=patterns
            )
        )
        if not names:
            _require_same(api, at, Path(folder))
        brought = Path(folder, RUN)
        if not to.exists():
            brought.rename(to)
        for file in [path for path in brought.rglob("*") if path.is_file()]:
            target = to / file.relative_to(brought)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)


def read_file(api: HfApi, mirror: Mirror, name: str) -> str:
    """The text of the run's file *name*."""
    at = mirror.repository
    with tempfile.TemporaryDirectory() as folder:
        path = _downloaded(
            lambda: api.hf_hub_download(at.id, f"{RUN}{name}", repo_type=DATASET, revision=at.head, local_dir=folder)
        )
        return Path(path).read_text(encoding="utf-8")


def _downloaded(download: Callable[[], str]) -> str:
    try:
        return with_retries(download)
    except LocalEntryNotFoundError as error:
        raise UnreachableError("The Hub does not answer just now. Run it again in a while.") from error


def _require_same(api: HfApi, of: Repository, folder: Path) -> None:
    for path, known in file_ids(api, of, of.head).items():
        file = folder / path
        if path.startswith(RUN) and not (file.is_file() and known in content_ids(file)):
            raise PublishError(f"{path} of {of.id} did not arrive as the Hub has it. Run it again.")
