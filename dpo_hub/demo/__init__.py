"""Files that ship with the package: a small base model, and a preference file for each practical use of DPO."""

from pathlib import Path

FILES = Path(__file__).parent / "files"
