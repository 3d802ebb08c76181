"""Runs survive whatever is done to their processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .chaos import chaos

KILLS = 26


@pytest.mark.full
def test_killed_runs_come_to_the_same_as_undisturbed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL at random moments, inside writes too: no run is lost, stuck or doubled, and every byte is the same."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tally = chaos(KILLS, int(os.environ.get("CHAOS_SEED", "0")), tmp_path)
    assert not tally.failures, "\n".join(tally.failures)
    assert tally.passed >= KILLS
