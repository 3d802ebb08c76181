"""The versions of the packages that a run was trained with. Imports none of them."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from .. import __version__

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes")


def versions() -> dict[str, str]:
    """The versions of Python, of dpo_hub and of the installed packages that a trained adapter depends on."""
    found = {"Python": platform.python_version(), "dpo_hub": __version__}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
