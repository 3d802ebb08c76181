"""What tests of training share."""

from __future__ import annotations

import math

import pytest


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every look be taken, however slow the machine is just now."""
    monkeypatch.setattr("dpo_hub.training.watch.SHORT", math.inf)
