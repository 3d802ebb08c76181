"""This package, ready to run on another machine: its files and its requirements. So no release of it is needed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = Path(__file__).parents[1]
NAME = "dpo_hub"


def package_files() -> dict[str, Path]:
    """Every file of the package, by its path from the folder above it, such as `dpo_hub/recipe.py`."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(PACKAGE.parent).as_posix(): path for path in sorted(files)}


def requirements(*extras: str, pins: Mapping[str, str] | None = None) -> list[str]:
    """The package's requirements with *extras*, each pinned to the version installed here, or to the one in *pins*.

    A requirement without such a version keeps the range that the package declares.
    """
    asked = {canonicalize_name(need.name): need for need in _requirements_of(extras)}
    lines = {}
    for name, need in sorted(asked.items()):
        version = pins.get(name) if pins is not None else _installed(name)
        lines[name] = f"{need.name}=={version}" if version else f"{need.name}{need.specifier}"
    return list(lines.values())


def _requirements_of(extras: tuple[str, ...]) -> Iterator[Requirement]:
    """The package's own requirements with *extras*, including those of the extras that these name."""
    for line in importlib.metadata.requires(NAME) or ():
        need = Requirement(line)
        if need.marker is not None and not any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        if canonicalize_name(need.name) == canonicalize_name(NAME):
            yield from _requirements_of(tuple(need.extras))
        else:
            yield need


def _installed(name: str) -> str | None:
    """The installed version of *name*, without the local build suffix, as in 2.13.0+cpu."""
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None
