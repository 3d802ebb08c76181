from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build wheel and sdist as `python -m build` does, with the setuptools that is installed."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.full
def test_the_wheel_runs_the_demo(built: Path, tmp_path: Path, home: Path) -> None:
    """What is installed from the wheel has the model and the files, and does the main job without the checkout."""
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    result = subprocess.run(
        [sys.executable, "-m", "dpo_hub", "demo", "conciseness", "--model", "demo"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Conciseness" in result.stdout
    assert list(home.glob("runs/*/adapter/adapter_model.safetensors"))


def test_the_sdist_has_what_the_wheel_is_made_of(built: Path) -> None:
    """Model, preference files and templates travel with the source too."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "demo/model/model.safetensors",
        "demo/files/tone.csv",
        "demo/assistant_files/general.tsv",
        "hub/card.md.jinja",
        "hub/space.md.jinja",
        "py.typed",
    ):
        assert f"dpo_hub/{needed}" in names


def test_constraints_pin_every_requirement() -> None:
    """Each direct dependency, extras included, has its exact version in constraints.txt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    wanted = {requirement.split(">")[0].split("[")[0].lower().replace("_", "-") for requirement in listed}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert wanted - {"dpo-hub"} <= pinned
    assert "torch==2.13.0" in lines
