"""Write space/, the Space's files with the versions of constraints.txt: python scripts/build_space.py [FOLDER]."""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dpo_hub.hub.space import space_files

ROOT = Path(__file__).parents[1]


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "space"
    folder.mkdir(parents=True, exist_ok=True)
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    pins = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pinned}
    for name, content in space_files(pins).items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
