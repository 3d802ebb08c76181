"""A run that is trained once for the tests that only look at it."""

from __future__ import annotations

import json

import pytest

from dpo_hub.demo import FILES
from dpo_hub.preferences import read_preferences
from dpo_hub.recipe import Recipe
from dpo_hub.run import Run
from dpo_hub.state import State
from dpo_hub.training.train import train


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a finished run on the first 40 pairs of the demo's tone file, with its evaluation."""
    folder = tmp_path_factory.mktemp("trained")
    file = folder / "few.csv"
    lines = (FILES / "tone.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:41]), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPO_HUB_HOME", str(folder / "home"))
        run = Run.create(read_preferences(file), Recipe.for_model(epochs=4, sft_weight=0, beta=0.3))
        run.write("evaluation.json", json.dumps(train(run).evaluation))
        run.set_state(State("finished"))
    return run
