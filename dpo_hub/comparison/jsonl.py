"""JSON Lines files that survive a crash of the writing process. Knows nothing of their content."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Append a line to *path* and flush it to disk. The caller must hold the file's lock.

    If a killed process left half a line, the record starts a new line.
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
    """The records of *path* in order; incomplete lines are skipped, and a missing file has none."""
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue
