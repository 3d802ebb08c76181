"""Base models by their names: which are ours, which lie on this machine, and what the world calls them. Loads no torch.

A base model is `demo`, `smollm2`, a name on the Hub, a folder, or a GGUF file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import ModelError
from ..recipe import DEMO_MODEL, SMOLLM2

EMBEDDED = Path(__file__).parents[1] / "demo" / "model"
"""Where `demo` lies, which ships with the package."""
OURS = (DEMO_MODEL, SMOLLM2)
"""The names that mean the same everywhere, whatever lies beside them."""
SMOLLM2_ON_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF = ".gguf"
LOCAL_FOLDER = "a local folder"
"""What the world is told of a base model that lies on the disk of whoever trained."""
LOCAL_FILE = "a local GGUF file"
"""The same, of one that is a file."""

PLAIN = ("F64", "F32", "F16", "BF16")
"""Types of weights in a GGUF file that are numbers, and not quantised blocks."""

_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def local(model: str) -> Path | None:
    """Where *model* lies on this machine: its folder, or its GGUF file, which may be the only one in a folder.

    Returns:
        The absolute path, or None where it is one of ours or a name on the Hub.

    Raises:
        ModelError: the file is not there, or the folder has several of them and no other model.
    """
    path = Path(model)
    if model in OURS:
        return None
    if path.is_dir():
        return _in_folder(path.resolve())
    if path.suffix.lower() != GGUF:
        return None
    if not path.is_file():
        raise ModelError(f"There is no GGUF file {model}. Check the path.")
    return path.parent.resolve() / path.name  # the file itself may be a link to something with no such ending


def _in_folder(folder: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == GGUF)
    if (folder / "config.json").is_file() or not files:
        return folder
    if len(files) > 1:
        some = ", ".join(path.name for path in files[:3])
        raise ModelError(f"The folder {folder} has {len(files)} GGUF files ({some}, …). Name one of them: --model FILE")
    return files[0]


def is_gguf(place: Path) -> bool:
    """Whether what `local` returned is a GGUF file."""
    return place.suffix.lower() == GGUF and not place.is_dir()


def told_of(origin: Mapping[str, str]) -> str:
    """Say what a run's report has of the `file` that the base model was read from, and the `type` of weights there."""
    return f"{origin['file']}, {'with weights in' if origin['type'] in PLAIN else 'dequantised from'} {origin['type']}"


def on_hub(model: str) -> str:
    """Name *model* as anybody can load it: for `smollm2`, what the Hub has of it, whose weights differ a little."""
    return SMOLLM2_ON_HUB if model == SMOLLM2 else model


def public_name(model: str) -> str:
    """Name *model*, as a recipe does, without giving away a path; a path in a recipe is absolute, so it is no id."""
    if _HUB_ID.fullmatch(model):
        return model
    return LOCAL_FILE if model.lower().endswith(GGUF) else LOCAL_FOLDER


def public_base(model: str) -> str:
    """Name what an adapter to *model* loads on, for anybody: `demo`, a Hub id, `LOCAL_FOLDER` or `LOCAL_FILE`."""
    return public_name(on_hub(model))


def is_on_hub(base: str) -> bool:
    """Whether what `public_base` returned is the name of a model on the Hub."""
    return base not in (DEMO_MODEL, LOCAL_FOLDER, LOCAL_FILE)
