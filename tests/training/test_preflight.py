"""What is foreseen of a run is what happens, and looking ahead leaves no trace."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpo_hub.errors import DiskFullError, ModelError
from dpo_hub.preferences import read_preferences
from dpo_hub.preferences.doctor.findings import of_all
from dpo_hub.recipe import ENGINES, Recipe
from dpo_hub.runs.run import Run
from dpo_hub.training.ahead import run_preflight
from dpo_hub.training.engine import choose_engine, using_engine
from dpo_hub.training.forecast import Disk, Memory, Outlook, forecast
from dpo_hub.training.live import LiveBytes
from dpo_hub.training.machine import container_room, free_disk, free_memory
from dpo_hub.training.preflight import examine, require_room
from dpo_hub.training.rehearsal import measure_step_memory, rehearse
from dpo_hub.training.tokens import Batches, batches_of, count_tokens, pairs_at
from dpo_hub.training.trainer import prepare

from .test_trainer import make_run, save_base

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"
GB = 10**9


@pytest.mark.full
@pytest.mark.parametrize("case", ["demo", "10m"])
def test_the_forecast_is_near_what_is_measured(case: str) -> None:
    """A process that trains takes at most what was foreseen, give or take 15 %, over its life and from then on."""
    command = [sys.executable, str(BENCHMARK), "--case", case, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (told,) = json.loads(done.stdout)["cases"]
    for part in ("process", "training"):
        assert told["forecast"][part] == pytest.approx(told["measured"][part], rel=0.15), part


def prepared(run: Run) -> tuple[Any, Recipe]:
    trainer = prepare(run.recipe, run.pairs("train"), run.pairs("held_out"), run.path / "checkpoints")
    return trainer, choose_engine(trainer, run.recipe)[0]


def what_may_change(trainer: Any) -> list[Any]:
    """All that the next step depends on, and what is logged of it."""
    parameters = list(trainer.model.parameters())
    return [
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        [float(weight.detach().double().sum()) for weight in parameters],
        [float(buffer.double().sum()) for buffer in trainer.model.buffers()],
        [weight.grad for weight in parameters],
        [module.training for module in trainer.model.modules()],
        {mode: dict(metrics) for mode, metrics in trainer._metrics.items()},
        (trainer._total_train_tokens, trainer.precompute_ref_logps, len(trainer.accelerator._dataloaders)),
    ]


@pytest.mark.parametrize("model", ["demo", "opt"])
@pytest.mark.parametrize("engine", ENGINES)
def test_looking_ahead_leaves_no_trace(few_pairs: Path, tmp_path: Path, model: str, engine: str) -> None:
    """With and without forecast and rehearsal, a run ends with the same weights to the last bit, dropout or not."""
    if model == "opt":  # drops out by a function of its own
        small = {"word_embed_proj_dim": 32, "ffn_dim": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
        model = save_base(tmp_path / "base", "opt", dropout=0.5, **small)
    ends = []
    for looks in (False, True):
        trainer, recipe = prepared(make_run(few_pairs, model=model, engine=engine, epochs=1, learning_rate=1e-3))
        with using_engine(trainer, recipe):
            if looks:
                before = what_may_change(trainer)
                outlook = forecast(trainer, recipe, tmp_path)
                rehearse(trainer, [pairs_at(trainer.train_dataset, outlook.batches.largest)])
                assert what_may_change(trainer) == before
            trainer.train()
        ends.append([weight.detach().clone() for weight in trainer.model.parameters() if weight.requires_grad])
    assert all(torch.equal(*both) for both in zip(*ends, strict=True))


def test_memory_that_runs_out_is_passed_on(few_pairs: Path) -> None:
    """Whoever asked for the rehearsal gets the error, and the trainer is as it was."""
    trainer, recipe = prepared(make_run(few_pairs))
    before, usual = what_may_change(trainer), trainer.compute_loss

    def compute_loss(*arguments: Any) -> torch.Tensor:
        usual(*arguments)
        raise torch.OutOfMemoryError

    trainer.compute_loss = compute_loss
    with using_engine(trainer, recipe), pytest.raises(torch.OutOfMemoryError):
        rehearse(trainer, [pairs_at(trainer.train_dataset, [0])])
    assert what_may_change(trainer) == before


@pytest.mark.parametrize("epochs", [0.5, 2])
def test_batches_are_foreseen_in_their_order(few_pairs: Path, epochs: float) -> None:
    """The largest batch is one that comes, and the tokens of all are those that are trained on."""
    trainer, recipe = prepared(make_run(few_pairs, epochs=epochs, batch_size=3, accumulation=2))
    foreseen, collate, came = batches_of(trainer, recipe), trainer.data_collator, []

    def collator(pairs: list[Any]) -> Any:
        return collate(pairs) | {"tokens": count_tokens(pairs, recipe)}

    usual = trainer.compute_loss

    def compute_loss(model: Any, inputs: dict[str, Any], **others: Any) -> Any:
        came.append(inputs.pop("tokens"))
        return usual(model, inputs, **others)

    trainer.data_collator, trainer.compute_loss = collator, compute_loss
    with using_engine(trainer, recipe):
        trainer.train()
    assert foreseen.count == len(came)
    assert (foreseen.most_tokens, foreseen.tokens) == (max(came), sum(came))
    assert foreseen.steps == trainer.state.global_step
    assert count_tokens(pairs_at(trainer.train_dataset, foreseen.largest), recipe) == max(came)


def test_live_bytes_are_those_that_are_held() -> None:
    """What is freed no longer counts, views count once, and what was there before does not count."""
    there = torch.ones(1000, requires_grad=True)
    with LiveBytes() as live:
        double = there * 2
        assert (live.now, live.most) == (4000, 4000)
        square = double.view(10, 100) ** 2  # keeps `double` for its gradient
        del double
        assert live.now == 8000
        live.restart()
        del square
        assert (live.now, live.most) == (0, 8000)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_pair_tells_what_a_batch_holds(few_pairs: Path, engine: str) -> None:
    """What the forward pass leaves grows with the tokens, with either engine."""
    trainer, recipe = prepared(make_run(few_pairs, engine=engine))
    one, many = [pairs_at(trainer.train_dataset, range(count)) for count in (1, 12)]
    with using_engine(trainer, recipe):
        kept = [measure_step_memory(trainer, pairs).activations / count_tokens(pairs, recipe) for pairs in (one, many)]
    assert kept[0] == pytest.approx(kept[1], rel=0.05)


def outlook(*, free: int = 10 * GB, disk: int = 10 * GB, fitting: int = 8) -> Outlook:
    memory = Memory(GB, 0, 0, 0, 2 * GB, 0, GB, GB, earlier=0, held=2 * GB, free=free)
    batches = Batches([0], [[0], [0]], 0, [10, 10], 1, 1, 10, 10)
    return Outlook("cpu", "trl", 100, 10, memory, Disk(GB, disk), batches, fitting)


@pytest.fixture
def run(few_pairs: Path) -> Run:
    return Run.create(read_preferences(few_pairs), Recipe.for_model())


def test_what_is_foreseen_is_kept_in_the_run(run: Run) -> None:
    """A run that can go ahead goes ahead, and its folder has the figures."""
    require_room(outlook(), run)
    kept = json.loads((run.path / "preflight.json").read_text())
    assert (kept["memory"]["peak"], kept["disk"]["needed"], kept["findings"]) == (5 * GB, GB, [])


@pytest.mark.parametrize(
    ("ahead", "error", "told"),
    [
        (outlook(disk=GB // 2), DiskFullError, "Checkpoints and adapter take 1.0 GB, and 500 MB of disk are free"),
        (outlook(free=GB, fitting=0), ModelError, "Not even one pair at a time fits into the 1.0 GB that are free"),
    ],
)
def test_certain_failure_stops_a_run_unless_forced(
    run: Run, ahead: Outlook, error: type[Exception], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is one sentence with what to do; with force it is a warning."""
    with pytest.raises(error, match=told) as stopped:
        require_room(ahead, run)
    assert str(stopped.value).endswith("--force goes on regardless.")
    assert (run.path / "preflight.json").is_file()
    caplog.clear()
    require_room(ahead, run, force=True)
    assert told in caplog.text


def test_what_deserves_a_look_does_not_stop_a_run(run: Run) -> None:
    """Memory that a smaller batch would spare and memory that is tight are told."""
    assert not outlook().memory.needs_rehearsal
    assert outlook(free=3 * GB).memory.needs_rehearsal
    for ahead, told in (
        (outlook(free=GB, fitting=4), "4 at a time would fit"),
        (outlook(free=3 * GB), "The run may take 3.0 GB of the 3.0 GB that are free"),
    ):
        require_room(ahead, run)
        (finding,) = examine(ahead)
        assert finding.severity == "medium"
        assert told in finding.message


@pytest.mark.parametrize(
    ("line", "folder", "files"),
    [
        ("0::/box/run", "box", {"memory.max": 900, "memory.current": 500}),
        ("0::/elsewhere", "", {"memory.max": 900, "memory.current": 500}),
        ("4:cpu,memory:/box", "memory/box", {"memory.limit_in_bytes": 900, "memory.usage_in_bytes": 500}),
    ],
)
def test_a_containers_limit_counts(tmp_path: Path, line: str, folder: str, files: dict[str, int]) -> None:
    """Both kinds of control groups are read, at any level above the process; inactive page cache is not in use."""
    own, group = tmp_path / "cgroup", tmp_path / "groups" / folder
    group.mkdir(parents=True)
    own.write_text(f"9:name=systemd:/\n{line}\n")
    for name, number in files.items():
        (group / name).write_text(f"{number}\n")
    (group / "memory.stat").write_text("anon 400\ninactive_file 100\ntotal_inactive_file 100\n")
    assert list(container_room(own, tmp_path / "groups")) == [500]
    (group / next(iter(files))).write_text("max\n")
    assert list(container_room(own, tmp_path / "groups")) == []


def test_this_machine_has_memory_and_disk(tmp_path: Path) -> None:
    """A folder that is not there yet lies on the disk of the one above it."""
    assert free_memory() > 0
    assert free_disk(tmp_path / "not" / "yet") == pytest.approx(free_disk(tmp_path), rel=0.01)


def test_a_look_ahead_has_it_all(few_pairs: Path, home: Path) -> None:
    """Pairs cut, trained parameters, steps and time are told, and no run is made."""
    ahead = run_preflight(read_preferences(few_pairs), Recipe.for_model(max_length=60, epochs=1, batch_size=8))
    assert ahead.pairs == {"train": 32, "held_out": 8}
    assert ahead.cut > 0
    (cut,) = [finding for finding in ahead.findings if finding.kind == "cut"]
    assert cut.severity == "medium"
    assert cut.message == f"Of {of_all(ahead.cut, 32, 'training pair')} max_length cuts off the end."
    assert ahead.outlook.trainable == 350_208
    assert ahead.outlook.batches.steps == 4
    assert 0 < ahead.step_seconds < ahead.run_seconds
    assert not home.exists()
    assert replace(ahead, findings=[]).as_dict()["cost"] is None


def test_nothing_left_to_train_on_is_told(few_pairs: Path) -> None:
    """Where no prompt fits, it is said before a run is made."""
    with pytest.raises(ModelError, match="max_length, 8 tokens, is too short for all 32 train prompts"):
        run_preflight(read_preferences(few_pairs), Recipe.for_model(max_length=8))
