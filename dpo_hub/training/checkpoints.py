"""Checkpoints to resume from: written to a temporary folder, verified, renamed, and read only if complete.

A checkpoint holds the adapter, the optimizer, the schedule, the random state and the trainer's own state, as
transformers writes them; only tensors and numbers are ever unpickled. Knows nothing of TRL or of runs.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import RunError, needing_extra

with needing_extra("train"):
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open
    from transformers.trainer_pt_utils import safe_globals

from .memory import is_out_of_memory

log = logging.getLogger(__name__)

ADAPTER, OPTIMIZER, SCHEDULER, STATE = "adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"
RANDOM = "rng_state"
ASIDE = ".aside"
KEPT = 2
"""Checkpoints to keep: the newest, and one to fall back on."""
Complaint = Callable[[Path], str | None]
"""Returns what is wrong with the checkpoint in a folder, or None."""


def step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in *folder*, newest first."""
    return sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True)


def newest_good(folder: Path, problem_of: Complaint) -> Path | None:
    """Find the newest intact checkpoint; log what is wrong with newer ones."""
    for found in checkpoints(folder):
        reason = problem_of(found)
        if reason is None:
            return found
        log.warning("%s is not used: %s", found.name, reason)
    return None


@contextmanager
def atomic_checkpoint(target: Path, problem_of: Complaint, wait: Callable[[], None]) -> Iterator[Path]:
    """Give a folder to write the checkpoint *target* into; once verified, rename it and delete older ones.

    Several processes may write into it: the others use `joined_checkpoint`, and *wait* synchronises them.

    Raises:
        RunError: the written checkpoint cannot be read back.
    """
    aside = target.parent / ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    written = aside / target.name
    written.mkdir(parents=True)
    try:
        wait()
        yield aside
        wait()
        for path in written.rglob("*"):
            flush(path)
        if reason := problem_of(written):
            raise RunError(f"The checkpoint that was just written cannot be read back: {reason}. Check the disk.")
        shutil.rmtree(target, ignore_errors=True)
        written.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for old in checkpoints(target.parent)[KEPT:]:
        shutil.rmtree(old)


@contextmanager
def joined_checkpoint(target: Path, wait: Callable[[], None]) -> Iterator[Path]:
    """Give the other processes the same folder as `atomic_checkpoint`."""
    wait()
    yield target.parent / ASIDE
    wait()


def flush(path: Path) -> None:
    """Flush a file, or a folder's list of entries, to disk, so that it survives a power cut."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def problem_of(folder: Path, model: PeftModel, *, sharded: bool = False) -> str | None:
    """Return what is missing, unreadable or of the wrong shape in the checkpoint *folder* of *model*, or None.

    If weights and optimizer are *sharded* over processes, FSDP or DeepSpeed write them in formats of their own, and
    only the other files are checked.

    Raises:
        MemoryError, RuntimeError: memory ran out, so nothing is known about the checkpoint.
    """
    randoms = sorted(path.name for path in folder.glob(f"{RANDOM}*.pth")) or [f"{RANDOM}.pth"]
    checks: list[tuple[str, Callable[[Path], str | None]]] = [
        (STATE, _state_is_wrong),
        (SCHEDULER, _schedule_is_wrong),
        *((name, _random_is_wrong) for name in randoms),
    ]
    if not sharded:
        checks += [
            (ADAPTER, lambda path: _adapter_is_wrong(path, model)),
            (OPTIMIZER, lambda path: _optimizer_is_wrong(path, model)),
        ]
    for name, is_wrong in checks:
        path = folder / name
        if not path.is_file():
            return f"it has no {name}"
        try:
            reason = is_wrong(path)
        except (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, SafetensorError) as error:
            if is_out_of_memory(error):
                raise
            return f"its {name} cannot be read ({str(error).strip().partition(chr(10))[0] or type(error).__name__})"
        if reason:
            return f"its {name} {reason}"
    return None


def processes_of(folder: Path) -> int:
    """How many processes wrote the checkpoint *folder*."""
    return len(list(folder.glob(f"{RANDOM}*.pth")))


def is_final(folder: Path) -> bool:
    """Whether no step is left after the checkpoint *folder*."""
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return bool(state["global_step"] >= state["max_steps"])


def _state_is_wrong(path: Path) -> str | None:
    step = json.loads(path.read_text(encoding="utf-8"))["global_step"]
    return None if step == step_of(path.parent) else f"is of step {step}"


def _adapter_is_wrong(path: Path, model: PeftModel) -> str | None:
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    wanted = {name: list(weight.shape) for name, weight in weights.items()}
    with safe_open(path, "pt") as file:
        found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  # not a mapping
        if found != wanted:
            return "has weights of other names or shapes than the model's"
        return None if all(file.get_tensor(name).isfinite().all() for name in found) else "has weights that are NaN"


def _optimizer_is_wrong(path: Path, model: PeftModel) -> str | None:
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)["state"]
    wanted = Counter(tuple(weight.shape) for weight in model.parameters() if weight.requires_grad)
    for moment in ("exp_avg", "exp_avg_sq"):
        if Counter(tuple(of[moment].shape) for of in found.values()) != wanted:
            return "has moments of other shapes than the adapter's"
    return None


def _schedule_is_wrong(path: Path) -> str | None:
    step, wanted = torch.load(path, weights_only=True)["last_epoch"], step_of(path.parent)
    return None if step == wanted else f"is of step {step}"


def _random_is_wrong(path: Path) -> str | None:
    with safe_globals():  # type: ignore[no-untyped-call]
        missing = {"python", "numpy", "cpu"} - torch.load(path, weights_only=True).keys()
    return f"lacks {', '.join(sorted(missing))}" if missing else None
