"""On a CUDA device: what is foreseen is what is allocated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dpo_hub.training.train import train

from ..training.test_trainer import make_run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("engine", ["shared-prefix", "trl"])
def test_the_forecast_is_near_what_is_allocated(few_pairs: Path, engine: str) -> None:
    """A run allocates at most what was foreseen, give or take 15 %."""
    run = make_run(few_pairs, engine=engine)
    torch.cuda.reset_peak_memory_stats()
    train(run)
    peak = json.loads((run.path / "preflight.json").read_text())["memory"]["peak"]
    assert peak == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.15)
