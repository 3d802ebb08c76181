"""The models themselves, asked in a process of their own, so that nobody who publishes has to load torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ..errors import ModelError, needing_extra
from ..run import Run


def run_published(what: str, run: Run, folder: Path, *, offline: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `training.published`, where *offline* with what is on this machine only."""
    command = [sys.executable, "-m", "dpo_hub.training.published", what, str(run.path), str(folder)]
    environment = os.environ | ({"HF_HUB_OFFLINE": "1"} if offline else {})
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def last_line(text: str) -> str:
    """The last line of what a process said, which is its error's where it ended by one."""
    return text.strip().rpartition("\n")[2] or "it said nothing"


def merge(run: Run, folder: Path) -> None:
    """Save the base model of *run* with the adapter worked into it in *folder*.

    Raises:
        MissingExtraError: torch is not installed.
        ModelError: the base model cannot be loaded, or there is no memory or disk for it.
    """
    with needing_extra("train"):
        import importlib.metadata

        importlib.metadata.version("torch")
    done = run_published("merge", run, folder)
    if done.returncode:
        raise ModelError(f"The adapter could not be worked into its base model. {last_line(done.stderr)}")
