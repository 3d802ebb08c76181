"""As an extension of `hf`: installed as its installer leaves it, and asked by the real program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INSTALL = """
import subprocess, sys, sysconfig, venv
from datetime import datetime, timezone
from huggingface_hub.cli import extensions

zipped, folder = sys.argv[1], extensions._get_extension_dir("dpo")
folder.mkdir(parents=True)
venv.EnvBuilder(symlinks=True).create(folder / "venv")
python = extensions._get_venv_python(folder)
(site,) = (folder / "venv").glob("lib/python*/site-packages")
(site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # what the installer would download
pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
subprocess.run([*pip, "--no-deps", "--no-index", "--no-build-isolation", zipped], check=True)
script = extensions._get_venv_bin_path(folder / "venv", extensions._get_executable_name("dpo"))
extensions.ExtensionManifest(
    owner="ada", repo="hf-dpo", repo_id="ada/hf-dpo", short_name="dpo", executable_path=str(script.resolve()),
    type="python", installed_at=datetime.now(timezone.utc),
).save(folder)
"""
"""The steps of `hf extensions install`, which itself takes nothing but addresses at github.com."""

Ask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """The program `hf` of a user who has the extension and no checkout."""
    folder = tmp_path_factory.mktemp("user")
    source = folder / "hf-dpo-HEAD"
    shutil.copytree(ROOT / "dpo_hub", source / "dpo_hub", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    zipped = shutil.make_archive(str(folder / "HEAD"), "zip", folder, source.name)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    kept |= {"HOME": str(folder), "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    subprocess.run([sys.executable, "-c", INSTALL, zipped], cwd=folder, env=kept, check=True)

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = [Path(sys.executable).with_name("hf"), *arguments]
        return subprocess.run(program, cwd=folder, env=kept, capture_output=True, text=True, check=False)

    return ask


def test_hf_lists_it(hf: Ask) -> None:
    """`hf extensions list` names the command and where it came from."""
    listed = hf("extensions", "list")
    assert listed.returncode == 0, listed.stderr
    assert "hf dpo" in listed.stdout
    assert "ada/hf-dpo" in listed.stdout


def test_hf_dpo_has_our_commands(hf: Ask) -> None:
    """`hf dpo --help` calls itself that, and has every stage."""
    helped = hf("dpo", "--help")
    assert helped.returncode == 0, helped.stderr
    assert "Usage: hf dpo [OPTIONS] COMMAND" in helped.stdout
    assert [
        stage for stage in ("check", "preflight", "train", "chat", "publish", "space") if stage not in helped.stdout
    ] == []


def test_hf_dpo_passes_a_refusal_on(hf: Ask) -> None:
    """What is wrong with a file is one sentence on stderr and exit code 2, as without hf."""
    refused = hf("dpo", "check", "none.csv")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "none.csv" in refused.stderr


def test_no_file_is_taken_for_the_extension() -> None:
    """The installer would run a file of this name at the top as a script, and not install the package."""
    assert not (ROOT / "hf-dpo").exists()
