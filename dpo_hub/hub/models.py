"""Work on the models in a separate process, so that publishing does not have to load torch."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError, needing_extra
from ..runs.run import Run

log = logging.getLogger(__name__)

EXPECTED = 2
"""The exit code for an expected error, which is one line on stderr."""
MIN_SHARE = 0.5
"""The share of the adapter's effect below which a merged model is not worth using."""


@dataclass(frozen=True)
class Merged:
    """A merged model: its dtype, how it was checked (see `training.merged.Check`), and the tokens that end a reply."""

    dtype: str
    prompts: int
    worst: float
    share: float
    stops: tuple[str, ...]


def has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def run_published(what: str, run: Run, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `training.published` with *environment* added to this process's own."""
    command = [sys.executable, "-m", "dpo_hub.training.published", what, str(run.path), str(folder)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def failure_reason(done: subprocess.CompletedProcess[str]) -> str:
    """Say why the process failed: its error, or the signal that ended it."""
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return f"The process that has the model was ended by {name}, as happens where memory runs out."
    return done.stderr.strip().rpartition("\n")[2] or "It said nothing."


def merge(run: Run, folder: Path, *, token: str | bool | None = None) -> Merged:
    """Save the base model of *run*, with the adapter merged into it, in *folder*, and check that it computes the same.

    Args:
        run: a finished run.
        folder: is created.
        token: for a base model that has to be downloaded.

    Raises:
        MissingExtraError: torch is not installed.
        ModelError: the base model cannot be loaded, memory or disk space is short, or the saved model does not compute
            what base model and adapter do.
    """
    with needing_extra("train"):
        if not has_torch():
            raise ModuleNotFoundError(name="torch")
    done = run_published("merge", run, folder, **({"HF_TOKEN": token} if isinstance(token, str) else {}))
    if done.returncode:
        raise ModelError(f"The adapter could not be worked into its base model. {failure_reason(done)}")
    told = json.loads(done.stdout)
    merged = Merged(told["dtype"], told["prompts"], told["worst"], told["share"], tuple(told["stops"]))
    if merged.share < MIN_SHARE:
        log.warning(
            "Only %.0f%% of what the adapter does is left in %s, which is too coarse for so small a change. Use base "
            "model and adapter as they are.",
            100 * merged.share,
            merged.dtype,
        )
    return merged
