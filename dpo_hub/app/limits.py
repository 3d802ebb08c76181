"""What a visitor may use on this machine: how much, and which base models. Knows nothing of Gradio.

On your own machine there are no limits but those that you set. On a Space, where many share one device and one disk,
everything is limited.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from ..errors import RecipeError, RunError
from ..runs.base_model import OURS, is_gguf
from ..runs.launch import start
from ..runs.queue import waiting_runs
from ..runs.run import Run
from .visitors import Visitor, on_space

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_ONE_AT_A_TIME = Lock()
_BEGUN: list[Run] = []
"""Runs that this process has started and that may not have joined the queue yet."""


@dataclass(frozen=True)
class Limits:
    """The limits; None means no limit."""

    rows: int | None = None
    """Rows of a preference file."""
    upload_mb: int | None = None
    files: int | None = None
    """Files kept for a visitor."""
    epochs: int | None = None
    """Passes of a run over its pairs; all visitors share the device."""
    runs: int | None = None
    """Runs kept for a visitor."""
    waiting: int | None = None
    """Runs of one visitor that wait for the device."""
    queue: int | None = None
    """Runs of all visitors that wait for the device."""


def limits() -> Limits:
    """The limits in force: a Space has defaults, and environment variables set all but `waiting`.

    Raises:
        RecipeError: a variable is not a whole number above 0.
    """
    usual = Limits()
    if on_space():
        usual = Limits(rows=50_000, upload_mb=50, files=100, epochs=10, runs=20, waiting=2, queue=10)
    return Limits(
        rows=_limit_from("DPO_HUB_MAX_ROWS", usual.rows),
        upload_mb=_limit_from("DPO_HUB_MAX_UPLOAD_MB", usual.upload_mb),
        files=_limit_from("DPO_HUB_MAX_FILES", usual.files),
        epochs=_limit_from("DPO_HUB_MAX_EPOCHS", usual.epochs),
        runs=_limit_from("DPO_HUB_MAX_RUNS", usual.runs),
        waiting=usual.waiting,
        queue=_limit_from("DPO_HUB_MAX_QUEUE", usual.queue),
    )


def _limit_from(variable: str, usual: int | None) -> int | None:
    asked = os.environ.get(variable)
    if not asked:
        return usual
    if not re.fullmatch(r"[1-9][0-9]{0,17}", asked):
        raise RecipeError(f"{variable} is {asked!r}; it must be a whole number above 0.")
    return int(asked)


@contextmanager
def run_slot(visitor: Visitor, *, new: bool = True) -> Iterator[None]:
    """Reserve a place for one more run of *visitor*, so that no two runs take the same; call `begin` inside.

    A resumed run is not *new*.

    Raises:
        RunError: the visitor has too many runs, or too many are waiting.
    """
    with _ONE_AT_A_TIME:
        most = limits()
        _require_room(visitor, most if new else replace(most, runs=None))
        yield


def begin(run: Run) -> None:
    """Start the worker of *run*, and count the run as waiting until it is running."""
    start(run)
    _BEGUN.append(run)


def _require_room(visitor: Visitor, most: Limits) -> None:
    if most.runs is not None and len(visitor.runs()) >= most.runs:
        raise RunError(f"You have {most.runs} runs here, and more are not kept for one visitor. Remove one first.")
    waiting = _waiting()
    if most.queue is not None and len(waiting) >= most.queue:
        raise RunError(f"The queue is full, at {most.queue}. Try again when a run has ended.")
    own = [run for run in waiting if run.path.is_relative_to(visitor.shelf)]
    if most.waiting is not None and len(own) >= most.waiting:
        raise RunError(
            f"You already have {most.waiting} runs in the queue. Try again when one of them has started, or stop one."
        )


def _waiting() -> list[Run]:
    """The runs of all visitors that wait for the device."""
    _BEGUN[:] = [run for run in _BEGUN if _waits(run)]
    return list(dict.fromkeys([*(run for run in waiting_runs() if _waits(run)), *_BEGUN]))


def _waits(run: Run) -> bool:
    with suppress(FileNotFoundError):  # it was removed
        return run.state.status == "queued"
    return False


def require_few_epochs(epochs: float) -> None:
    """Check that a run makes no more passes over its pairs than allowed.

    Raises:
        RecipeError: it would make more.
    """
    most = limits().epochs
    if most is not None and epochs > most:
        raise RecipeError(f"Epochs are {epochs:g}, and a run may have {most} here, where all share one device.")


def allowed_model(model: str) -> str:
    """Return a base model's name, stripped of surrounding spaces, if it is allowed.

    It must be one of the package's own models or a model's name on the Hub: no URL, path or revision. On your own
    machine, a folder or a GGUF file is allowed too.

    Raises:
        RecipeError: it is not allowed.
    """
    name = model.strip()
    if name in OURS or (not on_space() and _is_here(name)):
        return name
    if not _HUB_ID.fullmatch(name) or ".." in name or Path(name).exists():
        here = "" if on_space() else ", or a folder or GGUF file of this machine"
        raise RecipeError(
            f"{name[:200]!r} is no base model: write {', '.join(OURS)}, or a name on the Hub as owner/name{here}."
        )
    return name


def _is_here(name: str) -> bool:
    """Whether it is a folder or a GGUF file; a folder with several GGUF files is rejected later."""
    path = Path(name)
    with suppress(OSError, ValueError):  # it is too long for a path, or contains a null
        return bool(name) and (path.is_dir() or (is_gguf(path) and path.is_file()))
    return False
