"""The Space's folder agrees with what the package asks for."""

from __future__ import annotations

import tomllib
from pathlib import Path

from huggingface_hub import RepoCard, SpaceHardware
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "space"


def test_the_pins_are_what_the_package_asks_for() -> None:
    """Each dependency of the package, of training and of the app is pinned to a version that the package accepts."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [Requirement(text) for text in (*project["dependencies"], *extras["train"], *extras["app"])]
    lines = (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned["gradio"] = RepoCard.load(SPACE / "README.md").data["sdk_version"]
    assert set(pinned) == {need.name for need in asked} - {"dpo_hub"}
    assert [need.name for need in asked if need.name in pinned and pinned[need.name] not in need.specifier] == []


def test_the_front_matter_names_what_there_is() -> None:
    """The app's file is there, and Spaces have the hardware."""
    data = RepoCard.load(SPACE / "README.md").data
    assert (SPACE / data["app_file"]).is_file()
    assert data["suggested_hardware"] in [hardware.value for hardware in SpaceHardware]
