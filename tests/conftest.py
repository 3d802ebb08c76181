"""Every test gets a home of its own, so that no run of one is seen by another or by the user."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

os.environ["HF_HUB_DISABLE_XET"] = "1"  # before the client is imported; no Hub of these tests speaks it

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.demo import FILES
from dpo_hub.runs.state import State

WriteCsv = Callable[[list[tuple[str, ...]]], Path]


PATIENCE = 120.0
"""Seconds to wait for a process. A few are enough, unless the machine is busy with other things."""


def until(happens: Callable[[], bool]) -> None:
    """Wait for something that other processes do."""
    end = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever needs the weights of `smollm2` takes long."""
    for item in items:
        if "smollm2_weights" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.full)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point DPO_HUB_HOME at a fresh folder."""
    folder = tmp_path / "home"
    monkeypatch.setenv("DPO_HUB_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def smollm2_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Fetch and convert the weights of `smollm2` once, 538 MB that go at the end; skip where they cannot be had."""
    from dpo_hub.errors import ModelError
    from dpo_hub.training import smollm2

    kept = tmp_path_factory.mktemp("smollm2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPO_HUB_HOME", str(kept))
        try:
            yield smollm2.folder()
        except ModelError as error:
            pytest.skip(str(error))
    shutil.rmtree(kept)


@pytest.fixture
def smollm2_home(smollm2_weights: Path, home: Path) -> Path:
    """Return this test's home, in which the base model `smollm2` is there."""
    (home / "models").mkdir(parents=True)
    (home / "models" / smollm2_weights.name).symlink_to(smollm2_weights)
    return home


@pytest.fixture
def write_csv(tmp_path: Path) -> WriteCsv:
    """Return a function that writes rows, the header first, to a CSV file."""

    def write(rows: list[tuple[str, ...]]) -> Path:
        path = tmp_path / "pairs.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
        return path

    return write


@pytest.fixture
def few_pairs(tmp_path: Path) -> Path:
    """Return a CSV file with the first 40 pairs of the demo's tone file."""
    path = tmp_path / "few.csv"
    lines = (FILES / "tone.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:41]), encoding="utf-8")
    return path


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return this process's copy of a folder that one test process of the session fills, by *make*, for all of them."""
    own = factory.getbasetemp()
    place = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / f"shared-{name}"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            begun = place.with_suffix(".begun")
            begun.mkdir()
            make(begun)
            begun.rename(place)
    return Path(shutil.copytree(place, own / name))


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a finished run on the first 40 pairs of the demo's tone file, with its evaluation."""

    def make(folder: Path) -> None:
        from dpo_hub.training.train import train

        file = folder / "few.csv"
        lines = (FILES / "tone.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(lines[:41]), encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DPO_HUB_HOME", str(folder))
            run = Run.create(read_preferences(file), Recipe.for_model(epochs=4, sft_weight=0, beta=0.3))
            run.write("evaluation.json", json.dumps(train(run).evaluation))
            run.set_state(State("finished"))

    (path,) = (made_once(tmp_path_factory, "trained-run", make) / "runs").glob("[!.]*")
    return Run(path)
