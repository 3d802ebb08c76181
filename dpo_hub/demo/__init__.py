"""What ships with the package: a small base model, and a preference file for each practical use of DPO."""

from pathlib import Path

MODEL = Path(__file__).parent / "model"
FILES = Path(__file__).parent / "files"
