"""Lines of JSON that outlive whoever writes them. Knows nothing of what they say."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line to *path*: once this returns it lies on the disk. Only for who holds the file's lock.

    Where a killed process left half a line, the record begins a line of its own.
    """
    line = json.dumps(record, ensure_ascii=False).encode(errors="replace") + b"\n"
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read() == b"\n" else b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def records(path: Path) -> Iterator[Any]:
    """The lines of *path* in their order, none where there is no file; half a line is none."""
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue
