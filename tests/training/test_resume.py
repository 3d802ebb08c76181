"""A run that was interrupted comes to the same, byte for byte, as one that was not."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase, TrainerState

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.errors import DiskFullError, ModelError
from dpo_hub.jobs.worker import work
from dpo_hub.runs.state import State
from dpo_hub.training import trainer
from dpo_hub.training.checkpoints import newest_good
from dpo_hub.training.memory import is_out_of_memory
from dpo_hub.training.probe import Probe
from dpo_hub.training.train import train

STEPS = 8


def new_run(file: Path, **settings: Any) -> Run:
    """A run of eight steps of four pairs."""
    settings = {"batch_size": 4, "epochs": 1, "evaluations": 2, "checkpoint_steps": 1} | settings
    return Run.create(read_preferences(file), Recipe.for_model(**settings))


def digest(run: Run) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in run.adapter.iterdir()}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of forty pairs, of which 32 are trained on."""
    from dpo_hub.demo import FILES

    path = tmp_path_factory.mktemp("pairs") / "few.csv"
    lines = (FILES / "tone.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:41]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home of its own for what all tests here share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPO_HUB_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def undisturbed(elsewhere: None, file: Path) -> Run:
    """A run that nothing happened to."""
    run = new_run(file)
    train(run)
    assert len(run.metrics) == STEPS
    return run


@pytest.fixture(scope="module")
def stopped(elsewhere: None, file: Path) -> Run:
    """A run that was told to stop in its fifth step; copies of it are resumed."""
    run = new_run(file)
    with pytest.raises(KeyboardInterrupt):
        train(run, at_step(4, tell_to_stop))
    return run


def at_step(wanted: int, do: Callable[[], None]) -> trainer.OnStep:
    def on_step(metrics: Mapping[str, float], _steps: int) -> None:
        if metrics["step"] == wanted:
            do()

    return on_step


def tell_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def again(stopped: Run, tmp_path: Path) -> Run:
    """A copy of the stopped run."""
    shutil.copytree(stopped.path, tmp_path / "again")
    return Run(tmp_path / "again")


def test_a_stopped_run_goes_on_where_it_was(again: Run, undisturbed: Run) -> None:
    """The last step is kept as a checkpoint, no step is done twice, and the adapter is the same."""
    assert sorted(path.name for path in (again.path / "checkpoints").iterdir()) == ["checkpoint-3", "checkpoint-4"]
    seen: list[float] = []
    train(again, lambda metrics, _steps: seen.append(metrics["step"]))
    assert seen == [5, 6, 7, 8]
    assert again.metrics == undisturbed.metrics
    assert again.evaluations == undisturbed.evaluations
    assert digest(again) == digest(undisturbed)


def test_a_step_can_be_left_in_its_middle(file: Path, undisturbed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop in a forward pass takes effect there, and what is kept is the step before it."""
    run, passes = new_run(file, checkpoint_steps=0, evaluations=0), []
    original = trainer.DPOTrainer.training_step

    def stop_in_the_third(self: Any, *args: Any, **kwargs: Any) -> Any:
        passes.append(self.state.global_step)
        if len(passes) == 3:
            tell_to_stop()
            raise AssertionError("the stop came too late")
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.DPOTrainer, "training_step", stop_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            train(run)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["checkpoint-2"]
    train(run)
    assert digest(run) == digest(undisturbed)


def test_a_stop_during_a_look_keeps_the_step(file: Path, undisturbed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step that was looked at is kept, and the look is taken again when the run goes on."""
    run = new_run(file, checkpoint_steps=0)

    def stop_in_it(_self: Probe) -> None:
        tell_to_stop()
        raise AssertionError("the stop came too late")

    with monkeypatch.context() as patch:
        patch.setattr(Probe, "measure", stop_in_it)
        with pytest.raises(KeyboardInterrupt):
            train(run)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["checkpoint-4"]
    train(run)
    assert run.metrics == undisturbed.metrics
    assert run.evaluations == undisturbed.evaluations
    assert digest(run) == digest(undisturbed)


def test_a_stop_waits_while_weights_change(file: Path, undisturbed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop in the middle of an update takes effect after it, with that step kept."""
    run = new_run(file, checkpoint_steps=0, evaluations=0)
    original = torch.optim.AdamW.step

    def stop_in_the_update(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(run.metrics) == 2:
            tell_to_stop()
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", stop_in_the_update)
        with pytest.raises(KeyboardInterrupt):
            train(run)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["checkpoint-3"]
    train(run)
    assert digest(run) == digest(undisturbed)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


TORN: dict[str, Callable[[Path], None]] = {
    "no trainer state": lambda folder: (folder / "trainer_state.json").unlink(),
    "no adapter": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "truncated adapter": lambda folder: truncate(folder / "adapter_model.safetensors"),
    "adapter only": lambda folder: [
        path.unlink() for path in folder.iterdir() if path.name != "adapter_model.safetensors"
    ],  # type: ignore[dict-item]
    "no optimizer": lambda folder: (folder / "optimizer.pt").unlink(),
    "truncated optimizer": lambda folder: truncate(folder / "optimizer.pt"),
    "no random state": lambda folder: (folder / "rng_state.pth").unlink(),
    "truncated random state": lambda folder: truncate(folder / "rng_state.pth"),
    "no schedule": lambda folder: (folder / "scheduler.pt").unlink(),
    "half a trainer state": lambda folder: truncate(folder / "trainer_state.json"),
    "another step's state": lambda folder: shutil.copy(  # type: ignore[dict-item,return-value]
        folder.with_name("checkpoint-3") / "trainer_state.json", folder
    ),
    "another step's schedule": lambda folder: shutil.copy(  # type: ignore[dict-item,return-value]
        folder.with_name("checkpoint-3") / "scheduler.pt", folder
    ),
}


@pytest.fixture(scope="module")
def prepared(stopped: Run, tmp_path_factory: pytest.TempPathFactory) -> trainer.PreferenceTrainer:
    """The stopped run's trainer, with its model."""
    return trainer.prepare(stopped.recipe, *stopped.splits().values(), tmp_path_factory.mktemp("checkpoints"))


@pytest.mark.parametrize("tear", TORN.values(), ids=TORN.keys())
def test_a_torn_checkpoint_is_passed_over(
    tear: Callable[[Path], None], again: Run, prepared: trainer.PreferenceTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    """The one before it is taken, and the log says why."""
    folder = again.path / "checkpoints"
    tear(folder / "checkpoint-4")
    with caplog.at_level("INFO", "dpo_hub"):
        assert newest_good(folder, prepared.checkpoint_problem) == folder / "checkpoint-3"
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("checkpoint-4 is not used: its ") or "it has no" in said


def test_the_run_goes_on_from_the_checkpoint_before(
    again: Run, undisturbed: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """What was done since is done again, and the adapter comes out the same."""
    TORN["truncated optimizer"](again.path / "checkpoints" / "checkpoint-4")
    with caplog.at_level("INFO", "dpo_hub"):
        train(again)
    assert "going on from step 3" in [record.getMessage() for record in caplog.records]
    assert again.metrics == undisturbed.metrics
    assert digest(again) == digest(undisturbed)


def test_with_every_checkpoint_torn_the_run_begins_again(again: Run, undisturbed: Run) -> None:
    """Nothing is lost but time."""
    for folder in (again.path / "checkpoints").iterdir():
        truncate(folder / "optimizer.pt")
    train(again)
    assert digest(again) == digest(undisturbed)


def test_nothing_that_could_run_is_kept(again: Run) -> None:
    """No pickle of arguments, no tokenizer and no card are in a checkpoint."""
    assert sorted(path.name for path in (again.path / "checkpoints" / "checkpoint-4").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
    ]


def test_checkpoints_are_due_by_time(file: Path) -> None:
    """Without a number of steps, minutes decide."""
    saved: list[int] = []

    def look(metrics: Mapping[str, float], _steps: int) -> None:
        saved.append(len(list((run.path / "checkpoints").glob("checkpoint-*"))))

    run = new_run(file, checkpoint_steps=0, checkpoint_minutes=0, evaluations=0)
    train(run, look)
    assert saved == [0, 1, 2, 2, 2, 2, 2, 2]
    run = new_run(file, checkpoint_steps=0, evaluations=0)
    saved.clear()
    train(run, look)
    assert saved == [0] * STEPS
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == [f"checkpoint-{STEPS}"]


# --- out of memory


def out_of_memory_at(step: int, larger_than: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let memory run out in that step, as long as a batch has more than so many pairs."""
    original = trainer.DPOTrainer.compute_loss

    def compute_loss(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        pairs = len(inputs["input_ids"]) // 2
        if self.model.training and self.state.global_step + 1 == step and pairs > larger_than:
            raise torch.OutOfMemoryError("CUDA out of memory (injected)")
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trainer.DPOTrainer, "compute_loss", compute_loss)


@pytest.mark.parametrize("step", [1, pytest.param(5, marks=pytest.mark.full)])
def test_out_of_memory_halves_the_batch_and_goes_on(
    step: int, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run ends with the adapter of one that began with the smaller batch: from the first step on, byte for byte."""
    smaller = new_run(file, batch_size=2, accumulation=2, sft_weight=0, learning_rate=1e-3)
    train(smaller)
    out_of_memory_at(step, 2, monkeypatch)
    run, seen = new_run(file, sft_weight=0, learning_rate=1e-3), []
    with caplog.at_level("WARNING", "dpo_hub"):
        train(run, lambda metrics, _steps: seen.append(metrics["step"]))
    assert "there is not enough memory: going on with batches of 2, 2 to an update" in caplog.text
    assert (run.recipe.batch_size, run.recipe.accumulation) == (2, 2)
    assert (run.asked.batch_size, run.asked.accumulation) == (4, 1)
    assert seen == [*range(1, STEPS + 1)], "a step was done twice"
    if step == 1:
        assert digest(run) == digest(smaller)
    weights, wanted = (load_file(of.adapter / "adapter_model.safetensors") for of in (run, smaller))
    for name, weight in weights.items():  # as wholes: Adam makes much of the last digits of a gradient close to zero
        assert torch.dist(weight, wanted[name]) < 1e-3 * wanted[name].norm(), name
    assert [line["loss"] for line in run.metrics] == pytest.approx([line["loss"] for line in smaller.metrics], abs=1e-4)


@pytest.mark.full
def test_with_no_smaller_batch_activations_go_and_then_the_run(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One pair at a time, then activation checkpointing, then one sentence with what would help."""
    out_of_memory_at(2, 0, monkeypatch)
    run = new_run(file)
    with caplog.at_level("WARNING", "dpo_hub"), pytest.raises(ModelError, match="Lower --max-length or --lora-r"):
        train(run)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("dpo_hub")]
    assert [line.partition("going on with ")[2] for line in said] == [
        "batches of 2, 2 to an update",
        "batches of 1, 4 to an update",
        "batches of 1, 4 to an update, and activation checkpointing",
    ]
    assert [line["step"] for line in run.metrics] == [1]


def test_a_cpus_way_of_saying_it_counts() -> None:
    """A CPU's allocator raises a plain RuntimeError."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


# --- a full disk


def no_room(*_args: Any, **_kwargs: Any) -> None:
    raise OSError(28, "No space left on device")


def no_room_for_safetensors(*_args: Any, **_kwargs: Any) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def no_room_for_torch(*_args: Any, **_kwargs: Any) -> None:
    raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")


def no_room_for(name: str) -> Callable[..., None]:
    original = Run.write

    def write(self: Run, to: str, text: str) -> None:
        no_room() if to == name else original(self, to, text)

    return write


WRITTEN = ("report.json", "evaluation.json", "samples.jsonl", "curves.png", "README.md")
BOUNDARIES: dict[str, tuple[Any, str, Callable[..., None]]] = {
    "metrics": (Run, "append_metrics", no_room),
    "a checkpoint's adapter": (PeftModel, "save_pretrained", no_room_for_safetensors),
    "a checkpoint's optimizer": (torch, "save", no_room_for_torch),
    "a checkpoint's state": (TrainerState, "save_to_json", no_room),
    "the adapter": (PreTrainedTokenizerBase, "save_pretrained", no_room),
    **{f: (Run, "write", no_room_for(f)) for f in WRITTEN},
}


QUICK = ("the adapter",)


@pytest.mark.parametrize(
    "boundary", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.full) for name in BOUNDARIES]
)
def test_a_full_disk_stops_the_run_and_it_goes_on_when_there_is_room(
    boundary: str, again: Run, undisturbed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the room runs out, the run has failed with the reason; resumed, it comes to the same."""
    again.set_state(State("queued"))
    with monkeypatch.context() as patch:
        patch.setattr(*BOUNDARIES[boundary])
        with pytest.raises(DiskFullError):
            work(again)
    assert again.state.status == "failed"
    assert again.state.reason.startswith("No room to write under")
    again.set_state(State("queued"))
    assert work(again).state.status == "finished"
    assert digest(again) == digest(undisturbed)
    assert again.metrics == undisturbed.metrics
    assert not (again.path / "checkpoints").exists()
    assert not list(again.path.glob(".*.aside"))
