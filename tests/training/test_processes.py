"""Two processes train a run as one does."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.errors import RecipeError
from dpo_hub.runs.launch import start, stop
from dpo_hub.training.measuring import even_parts

PATIENCE = 240.0

SETTINGS = """
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
num_machines: 1
num_processes: 2
mixed_precision: 'no'
main_process_port: {port}
"""
"""Without a GPU the two find each other by gloo."""


def new_run(file: Path, *, processes: int, **settings: Any) -> Run:
    run = Run.create(read_preferences(file), Recipe.for_model(sft_weight=0, learning_rate=1e-3, **settings))
    if processes > 1:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (run.path / "accelerate.yaml").write_text(SETTINGS.format(port=port))
    return run


def wait(run: Run, step: int | None = None) -> None:
    """Wait for the end, or for a step."""
    end = time.monotonic() + PATIENCE
    while not run.state.ended and (step is None or run.last_metrics.get("step", 0) < step):
        assert time.monotonic() < end, run.log_tail(30)
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.full
def test_two_processes_give_the_losses_of_one(few_pairs: Path) -> None:
    """The same pairs to an update, the same losses and held-out figures; and each stops and goes on as one does."""
    alone, together = (new_run(few_pairs, processes=count, batch_size=8, epochs=1) for count in (1, 2))
    start(alone)
    wait(alone)
    start(together)
    wait(together, step=2)
    stop(together)
    assert together.state.status in ("stopped", "finished"), together.log_tail(30)
    if together.state.status == "stopped":
        start(together)
        wait(together)
    assert together.state.status == "finished", together.log_tail(30)
    assert [line["step"] for line in together.metrics] == [1, 2, 3, 4]
    for one, two in zip(alone.metrics, together.metrics, strict=True):
        for name in ("loss", "margin", "chosen_logp", "rejected_logp"):
            assert two[name] == pytest.approx(one[name], abs=1e-4), (one["step"], name)
    assert together.evaluation == pytest.approx(alone.evaluation, abs=1e-4)


def test_what_cannot_be_shared_evenly_is_told() -> None:
    """The message says what to change."""
    assert Recipe(batch_size=6, accumulation=2).per_process(3) == Recipe(batch_size=2, accumulation=2)
    assert Recipe(batch_size=5, accumulation=2).per_process(2) == Recipe(batch_size=5, accumulation=1)
    with pytest.raises(RecipeError, match="Make batch_size a multiple of 2"):
        Recipe(batch_size=5, accumulation=3).per_process(2)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 16, 17, 31, 40])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_held_out_pairs_are_measured_once_each(count: int, processes: int) -> None:
    """Every batch of a part is of one size, for each process alike, and each pair weighs the same."""
    weights = dict.fromkeys(range(count), 0.0)
    for pairs, size, weight in even_parts(count, 4, processes):
        assert len(pairs) % (size * processes) == 0
        for pair in pairs:
            weights[pair] += weight / len(pairs)
    assert weights == pytest.approx(dict.fromkeys(range(count), 1.0))
