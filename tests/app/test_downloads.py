"""Downloads of a visitor's own, asked for as a browser does."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.app import downloads
from dpo_hub.app.downloads import ROUTES
from dpo_hub.app.handlers import files
from dpo_hub.runs.state import State

WEIGHTS = bytes(range(256)) * 4096


@pytest.fixture
def run(few_pairs: Path) -> Run:
    """A finished run with a little of everything."""
    run = Run.create(read_preferences(few_pairs), Recipe.for_model())
    run.adapter.mkdir()
    (run.adapter / "adapter_model.safetensors").write_bytes(WEIGHTS)
    run.write("README.md", "# Card\n")
    run.write("log.txt", "not for others\n")
    run.set_state(State("finished"))
    return run


@pytest.fixture
def browser() -> TestClient:
    return TestClient(Starlette(routes=ROUTES))


def test_a_run_is_a_zip_of_its_adapter_and_card(run: Run, browser: TestClient) -> None:
    """The zip is whole, says how long it is and whose name it has, and has neither log nor pairs."""
    answer = browser.get(f"/download/run/{run.id}")
    assert answer.headers["content-disposition"] == f'attachment; filename="{run.id}.zip"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["cache-control"] == "private, no-store"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.read("adapter/adapter_model.safetensors") == WEIGHTS
        assert set(archive.namelist()) == {
            "adapter/adapter_model.safetensors",
            "README.md",
            "recipe.json",
            "report.json",
        }


def test_a_download_leaves_nothing_behind(
    run: Run, browser: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that ended nor one that broke off keeps a file on the disk."""
    (tmp_path / "made").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "made"))
    browser.get(f"/download/run/{run.id}")
    blocks = downloads._blocks(packed := downloads._packed(run.path))
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    assert packed.closed
    assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize("name", ["none", "..%2f..%2fetc", "last", "tone"])
def test_what_is_not_there_is_a_sentence(run: Run, browser: TestClient, name: str) -> None:
    """A path, a beginning of an id and a made-up one give 404 and nothing of the disk."""
    answer = browser.get(f"/download/run/{name}")
    assert answer.status_code == 404
    assert str(run.path.parent) not in answer.text


def test_a_run_at_work_is_not_given(run: Run, browser: TestClient) -> None:
    """A run that has not finished says so."""
    run.set_state(State("queued"))
    answer = browser.get(f"/download/run/{run.id}")
    assert (answer.status_code, "queued, not finished" in answer.text) == (404, True)


def test_a_file_has_the_name_that_people_know(home: Path, few_pairs: Path, browser: TestClient) -> None:
    """An upload comes back as it was, as an attachment; demo files come too, and a dataset on the Hub does not."""
    kept = files.save_copy(home, few_pairs)
    answer = browser.get(f"/download/file/{kept}")
    assert answer.content == few_pairs.read_bytes()
    assert answer.headers["content-disposition"] == 'attachment; filename="few.csv"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert browser.get("/download/file/demo:tone").status_code == 200
    assert browser.get("/download/file/hub:ada%2Ftone").status_code == 404


def test_on_a_space_nobody_downloads_without_a_name(
    run: Run, browser: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a session that signed in, a Space gives nothing."""
    monkeypatch.setenv("SPACE_ID", "ada/app")
    assert browser.get(f"/download/run/{run.id}").status_code == 404
