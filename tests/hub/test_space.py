"""The app on a Space: what the Space's folder agrees with, and making Spaces on a Hub of our own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import RepoCard, SpaceHardware
from packaging.requirements import Requirement

from dpo_hub.hub.package import package_files
from dpo_hub.hub.space import Settings, space_files

from .conftest import ADA, ADA_READS, BOB, Python
from .loopback import Commit, Hub, Repo
from .loopback.faults import Fault

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "space"
SECRET = "hf_canaryOfTheSpace"
SCOPES = {"read-repos", "gated-repos", "contribute-repos", "write-repos", "manage-repos", "inference-api", "jobs"}
"""What the Hub's documentation calls what an app may be let do."""
START = "import dpo_hub, runpy; print(dpo_hub.__file__, flush=True); runpy.run_path('app.py', run_name='__main__')"


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


def test_the_folder_is_what_the_script_writes(tmp_path: Path) -> None:
    """space/ has exactly what scripts/build_space.py makes of pyproject.toml and constraints.txt."""
    subprocess.run([sys.executable, ROOT / "scripts" / "build_space.py", tmp_path], check=True)
    written, kept = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (tmp_path, SPACE))
    assert written == kept


def test_the_front_matter_names_what_there_is() -> None:
    """The app's file is there, Spaces have the hardware, the Hub has the scopes, and the description fits."""
    data = RepoCard.load(SPACE / "README.md").data
    assert (SPACE / data["app_file"]).is_file()
    assert data["suggested_hardware"] in [hardware.value for hardware in SpaceHardware]
    assert data["hf_oauth"] is True
    assert set(data["hf_oauth_scopes"]) <= SCOPES
    assert len(data["short_description"]) <= 60


def test_where_gradio_is_not_installed_the_oldest_that_will_do_is_named() -> None:
    """The light installation makes a Space too: with the lower bound of Gradio, and ranges for what is not there."""
    files = space_files(pins={})
    assert RepoCard(files["README.md"].decode()).data["sdk_version"] == "6.31.0"
    assert "\ntrl<1.17,>=1.16\n" in files["requirements.txt"].decode()


def space(python: Python, *arguments: str, token: str = ADA) -> subprocess.CompletedProcess[str]:
    return python("-m", "dpo_hub", "space", *arguments, token=token)


def test_a_new_space_has_the_app_and_keeps_its_runs(hub: Hub, python: Python) -> None:
    """It is private, has exactly the app's files in one commit, and a private bucket in which its runs lie."""
    done = space(python, "create", "ada/tune")
    assert done.returncode == 0, done.stderr
    made = hub.spaces["ada/tune"]
    files = space_files() | {path: file.read_bytes() for path, file in package_files().items()}
    assert made.head.files == {".gitattributes": made.commits[0].files[".gitattributes"]} | files
    assert (made.private, len(made.commits), made.settings["sdk"], made.secrets) == (True, 2, "gradio", {})
    assert made.settings["hardware"] == "cpu-basic"
    assert "sleepTimeSeconds" not in made.settings
    assert made.settings["volumes"] == [{"type": "bucket", "source": "ada/tune-runs", "mountPath": "/data"}]
    assert made.settings["variables"] == [{"key": "DPO_HUB_HOME", "value": "/data/dpo_hub"}]
    assert hub.buckets == {"ada/tune-runs": True}
    assert f"{hub.endpoint}/spaces/ada/tune\n" in done.stdout
    assert "dpo-hub space logs ada/tune --build -f" in done.stdout
    assert "an hour" not in done.stdout
    assert hub.unknown == []


def test_a_space_begins_with_what_was_asked_for(hub: Hub, python: Python, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardware, its price, sleep and variables are as asked; a secret's value is nowhere but among the secrets."""
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    paid = ("--hardware", "a10g-small", "--sleep", "900")
    more = ("--public", "--no-volume", "--secret", "JUDGE_KEY", "--secret", "HF_TOKEN", "--variable", "GREETING=a=b")
    done = space(python, "create", "ada/tune", *paid, *more)
    assert done.returncode == 0, done.stderr
    made = hub.spaces["ada/tune"]
    assert (made.private, made.settings["hardware"], made.settings["sleepTimeSeconds"]) == (False, "a10g-small", 900)
    assert made.settings["variables"] == [{"key": "GREETING", "value": "a=b"}]
    assert made.secrets == {"JUDGE_KEY": SECRET, "HF_TOKEN": ADA}
    assert ("volumes" in made.settings, hub.buckets) == (False, {})
    assert "a10g-small (1 × Nvidia A10G, 24 GB) costs $1.00 an hour. It sleeps after 900 seconds" in done.stdout
    shown = [done.stdout.encode(), done.stderr.encode(), str(made).encode(), *made.head.files.values()]
    assert [text for text in shown if SECRET.encode() in text or ADA.encode() in text] == []
    assert SECRET not in repr(Settings(secrets={"JUDGE_KEY": SECRET}))


def test_a_lost_answer_makes_no_second_space(hub: Hub, python: Python) -> None:
    """Where the Hub's word that the Space was made is lost, it is found made, and the app is put on it."""
    assert space(python, "create", "ada/first").returncode == 0
    hub.fault = Fault(len(hub.asked) + hub.asked.index("POST /api/repos/create"), "lost")
    assert space(python, "create", "ada/second").returncode == 0
    assert hub.asked.count("POST /api/repos/create") == 3
    assert hub.spaces["ada/second"].head.files == hub.spaces["ada/first"].head.files


@pytest.fixture
def alone(hub: Hub, python: Python, tmp_path: Path) -> Path:
    """A folder with the files of a Space, and nothing else."""
    assert space(python, "create", "ada/tune").returncode == 0
    for name, content in hub.spaces["ada/tune"].head.files.items():
        path = tmp_path / "space" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "space"


@pytest.fixture
def started(alone: Path) -> Iterator[subprocess.Popen[str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    settings = {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", START],
        cwd=alone,
        env=kept | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as app:
        try:
            yield app
        finally:
            app.kill()


def test_the_files_of_a_space_are_enough(alone: Path, started: subprocess.Popen[str]) -> None:
    """From nothing but what was committed, the app starts and serves its page."""
    assert started.stdout is not None
    assert Path(started.stdout.readline()).is_relative_to(alone)
    printed = iter(started.stdout)
    address = next((found[0] for line in printed if (found := re.search(r"http://127\.0\.0\.1:\d+", line))), None)
    assert address is not None, "the app ended before it listened"
    with urllib.request.urlopen(address, timeout=60) as page:
        assert '"title":"dpo_hub"' in page.read().decode()


def test_an_update_replaces_and_takes_out(hub: Hub, python: Python) -> None:
    """Files of the app are renewed, those it has no more are taken out, others stay; the second time adds nothing."""
    old = {"app.py": b"old", "dpo_hub/__init__.py": b"old", "dpo_hub/gone/old.py": b"old", "notes.md": b"mine"}
    hub.spaces["ada/tune"] = Repo(True, [Commit("initial commit", old)])
    said = [space(python, "update", "ada/tune") for _ in range(2)]
    assert [done.returncode for done in said] == [0, 0], said[0].stderr
    made = hub.spaces["ada/tune"]
    assert len(made.commits) == 2
    assert set(made.head.files) == {*space_files(), *package_files(), "notes.md"}
    assert (made.head.files["app.py"], made.head.files["notes.md"]) == (space_files()["app.py"], b"mine")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "ada/busy"), "ada/busy is there already. Bring the app on it up to date with dpo-hub space update"),
        (("update", "ada/busy"), "ada/busy has another app on it"),
        (("create", "ada/open"), "the bucket ada/open-runs, which is there already and is public"),
        (("create", "bob/tune"), "ada is neither bob nor a member of it"),
        (("create", "tune"), "Give it as owner/name"),
        (("update", "tune"), "Give it as owner/name"),
        (("update", "ada/none"), "The Hub has no ada/none"),
        (("logs", "ada/none"), "The Hub has no ada/none"),
        (("pause", "ada/none"), "The Hub has no ada/none"),
        (("restart", "ada/none"), "The Hub has no ada/none"),
        (("create", "ada/tune", "--hardware", "h900"), "The Hub has no machine 'h900'. Name one of a10g-small,"),
        (("create", "ada/tune", "--sleep", "60"), "--sleep is for paid hardware"),
        (("create", "ada/tune", "--secret", "UNSET"), "nothing in the environment variable UNSET"),
        (("create", "ada/tune", "--secret", f"KEY={SECRET}"), "the name of an environment variable"),
        (("create", "ada/tune", "--variable", "GREETING"), "'GREETING' is no NAME=VALUE"),
    ],
)
def test_what_cannot_be_done_is_told(hub: Hub, python: Python, arguments: tuple[str, ...], told: str) -> None:
    """Each is one line with what to do, and exit code 2; nothing is made and nobody's app is overwritten."""
    hub.spaces["ada/busy"] = Repo(True, [Commit("initial commit", {"index.html": b"mine"})])
    hub.buckets["ada/open-runs"] = False
    done = space(python, *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert told in done.stderr
    assert SECRET not in done.stderr
    assert (set(hub.spaces), len(hub.spaces["ada/busy"].commits)) == ({"ada/busy"}, 1)


@pytest.mark.parametrize(("token", "told"), [("", "There is no token"), (ADA_READS, "may only read"), (BOB, "bob is")])
def test_a_token_that_is_not_good_enough(hub: Hub, python: Python, token: str, told: str) -> None:
    """Nobody's token, one that may only read and somebody else's make nothing, not even a bucket."""
    done = space(python, "create", "ada/tune", token=token)
    assert (done.returncode, done.stderr.count("\n"), hub.spaces, hub.buckets) == (2, 1, {}, {})
    assert told in done.stderr


@pytest.mark.parametrize(
    ("status", "told"),
    [(402, "a Space on the one that costs nothing, cpu-basic, needs a PRO account"), (403, "may not do that for ada")],
)
def test_what_the_hub_refuses_is_told(hub: Hub, python: Python, status: int, told: str) -> None:
    """Where it wants to be paid, or lets nobody make a Space, one line says so and what to do."""
    hub.refusing = (status, "No")
    done = space(python, "create", "ada/tune")
    assert (done.returncode, done.stdout, done.stderr.count("\n"), hub.spaces) == (2, "", 1, {}), done.stderr
    assert "so no Space was made" in done.stderr
    assert told in done.stderr


def test_logs_are_those_of_the_app_or_of_its_build(hub: Hub, python: Python) -> None:
    """Each line is printed as it was said."""
    hub.spaces["ada/tune"] = Repo(True)
    assert space(python, "logs", "ada/tune").stdout == "Running on local URL\n"
    assert space(python, "logs", "ada/tune", "--build", "-f").stdout == "Cloning\nInstalling requirements.txt\n"


def test_a_space_is_paused_and_started_again(hub: Hub, python: Python) -> None:
    """It stands as asked, and the output says how to undo it."""
    hub.spaces["ada/tune"] = Repo(True)
    assert "dpo-hub space restart ada/tune" in space(python, "pause", "ada/tune").stdout
    assert hub.spaces["ada/tune"].stage == "PAUSED"
    assert space(python, "restart", "ada/tune").returncode == 0
    assert hub.spaces["ada/tune"].stage == "BUILDING"
