"""Names of base models: which are built in, which are on this machine, and their public names. Does not import torch.

A base model is `demo`, `smollm2`, a name on the Hub, a folder, or a GGUF file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import ModelError
from ..recipe import DEMO_MODEL, SMOLLM2

EMBEDDED = Path(__file__).parents[1] / "demo" / "model"
"""The folder of `demo`, which ships with the package."""
OURS = (DEMO_MODEL, SMOLLM2)
"""Built-in names, which mean the same everywhere, even if a local path has the same name."""
SMOLLM2_ON_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF = ".gguf"
LOCAL_FOLDER = "a local folder"
"""The public name of a base model in a folder on the disk of the person who trained."""
LOCAL_FILE = "a local GGUF file"
"""The same for a base model that is a file."""

PLAIN = ("F64", "F32", "F16", "BF16")
"""Weight types in a GGUF file that are plain numbers and not quantised blocks."""

_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def local_path(model: str) -> Path | None:
    """Find *model* on this machine: its folder, or its GGUF file, which may be the only one in a folder.

    Returns:
        The absolute path, or None for a built-in model or a name on the Hub.

    Raises:
        ModelError: the file does not exist, or the folder has several GGUF files and no other model.
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
    return path.parent.resolve() / path.name  # not resolved, as the file may be a link to one without this suffix


def _in_folder(folder: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == GGUF)
    if (folder / "config.json").is_file() or not files:
        return folder
    if len(files) > 1:
        some = ", ".join(path.name for path in files[:3])
        raise ModelError(f"The folder {folder} has {len(files)} GGUF files ({some}, …). Name one of them: --model FILE")
    return files[0]


def is_gguf(place: Path) -> bool:
    """Whether *place*, as returned by `local_path`, is a GGUF file."""
    return place.suffix.lower() == GGUF and not place.is_dir()


def describe_origin(origin: Mapping[str, str]) -> str:
    """Describe the `file` that the base model was read from and the `type` of its weights, as in a run's report."""
    return f"{origin['file']}, {'with weights in' if origin['type'] in PLAIN else 'dequantised from'} {origin['type']}"


def canonical_name(model: str) -> str:
    """Return a name of *model* that anybody can load: for `smollm2`, its Hub id, whose weights differ slightly."""
    return SMOLLM2_ON_HUB if model == SMOLLM2 else model


def public_name(model: str) -> str:
    """Name *model* of a recipe without revealing a path; paths in a recipe are absolute, so none looks like an id."""
    if _HUB_ID.fullmatch(model):
        return model
    return LOCAL_FILE if model.lower().endswith(GGUF) else LOCAL_FOLDER


def public_base(model: str) -> str:
    """Return the public name of an adapter's base model *model*: `demo`, a Hub id, `LOCAL_FOLDER` or `LOCAL_FILE`."""
    return public_name(canonical_name(model))


def is_on_hub(base: str) -> bool:
    """Whether *base*, as returned by `public_base`, is the name of a model on the Hub."""
    return base not in (DEMO_MODEL, LOCAL_FOLDER, LOCAL_FILE)
