"""This machine's free memory, within a container's limit if there is one, and free disk space. Does not need torch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def free_memory() -> int:
    """How many bytes this process can still get: what the system has, or what a container's limit leaves."""
    return min([psutil.virtual_memory().available, *container_room()])


def container_room(own: Path = OWN_CGROUPS, root: Path = CGROUPS) -> Iterator[int]:
    """The bytes that each memory limit on this process leaves; yields nothing if there is no limit.

    The system counts the page cache as used, but frees it before it kills a process, so the inactive part counts as
    free here. A container often sees its own group as the root, whatever path /proc/self/cgroup gives.
    """
    for hierarchy, names, path in _memory_groups(own):
        folder = root / hierarchy
        for group in dict.fromkeys([folder, *(folder / part for part in _upwards(path))]):
            limit, used = (_number(group / name) for name in names[:2])
            if limit is not None and used is not None and limit < psutil.virtual_memory().total:
                yield max(0, limit - used + _cached(group / "memory.stat", names[2]))


def _memory_groups(own: Path) -> Iterator[tuple[str, tuple[str, str, str], str]]:
    """The cgroup hierarchies that may limit memory: each one's folder, file names, and this process's path in it."""
    v2 = ("memory.max", "memory.current", "inactive_file")
    v1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for number, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if number == "0" and not controllers:
            yield "", v2, path
        elif "memory" in controllers.split(","):
            yield "memory", v1, path


def _upwards(path: str) -> list[Path]:
    place = Path(path.lstrip("/"))
    return [place, *place.parents]


def _number(file: Path) -> int | None:
    """The number in *file*, or None if there is no file or it contains `max`."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _cached(file: Path, name: str) -> int:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)


def free_disk(folder: Path) -> int:
    """How many bytes can still be written under *folder*, which need not exist yet."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free
