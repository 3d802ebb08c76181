"""Trial steps that measure time and memory and leave no trace. Knows nothing of runs or of TRL's classes.

*trainer* is always a `DPOTrainer` from `trainer.prepare`, within `shared_prefix` if that is the engine.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from .live import LiveBytes
from .memory import peak_bytes
from .randomness import random_state, set_random_state
from .reference import Tokens

REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
OPTIMIZER_STATES = 2
"""The number of values that AdamW keeps for each trained parameter."""


@dataclass(frozen=True)
class Rehearsal:
    """Seconds per step, the part spent in the forward pass, and the peak bytes held by the process.

    On a CPU the peak is since the process started. It includes the optimizer's state.
    """

    seconds: float
    forward_seconds: float
    peak: int


@dataclass(frozen=True)
class StepMemory:
    """Bytes of tensors in one step: what the forward pass leaves, and what each pass needs on top of that."""

    activations: int
    forward_extra: int
    backward_extra: int


def rehearse(trainer: Any, batches: Sequence[Sequence[Tokens]], *, reference_known: bool = True) -> Rehearsal:
    """Run a forward and a backward pass over each of *batches*, without an optimizer step.

    Weights, gradients, metrics, modes and all random states are restored afterwards, even on errors, so a run is
    the same to the last bit with or without it.

    Args:
        trainer: see the module's docstring.
        batches: pairs from the trainer's dataset; the largest batch twice shows the memory that a run needs.
        reference_known: whether the run will measure the reference in advance, so that no step has to.

    Raises:
        torch.OutOfMemoryError: a step does not fit into the device's memory.
    """
    device = trainer.accelerator.device
    with preserving_trainer_state(trainer):
        trained = [weight for weight in trainer.model.parameters() if weight.requires_grad]
        state = [torch.empty_like(weight) for weight in trained * OPTIMIZER_STATES if trainer.optimizer is None]
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        trainer.model.train()
        began, forward = _now(device), 0.0
        for pairs in batches:
            started = _now(device)
            loss = _loss(trainer, pairs, reference_known)
            forward += _now(device) - started
            trainer.accelerator.backward(loss)
        seconds = _now(device) - began
        untouched = sum(part.nbytes for part in state) if device.type == "cpu" else 0
        del state
        return Rehearsal(seconds / len(batches), forward / len(batches), peak_bytes(device) + untouched)


def measure_step_memory(trainer: Any, pairs: Sequence[Tokens]) -> StepMemory:
    """Run one step over *pairs* and count the bytes of its tensors, except the adapter's gradients."""
    with preserving_trainer_state(trainer):
        trainer.model.train()
        # Allocate the adapter's gradients first, so that they are not counted as part of the step.
        for weight in trainer.model.parameters():
            weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
        with LiveBytes() as live:
            loss = _loss(trainer, pairs, reference_known=True)
            activations, most = live.now, live.most
            live.restart()
            trainer.accelerator.backward(loss)
        return StepMemory(activations, most - activations, live.most - activations)


def _loss(trainer: Any, pairs: Sequence[Tokens], reference_known: bool) -> torch.Tensor:
    batch = {name: part.to(trainer.accelerator.device) for name, part in trainer.data_collator(list(pairs)).items()}
    if reference_known:
        unknown = torch.zeros(len(pairs), device=trainer.accelerator.device)
        batch = dict.fromkeys(REFERENCE_COLUMNS, unknown) | batch
    with trainer.accelerator.autocast():
        loss: torch.Tensor = trainer.compute_loss(trainer.model, batch)
    return loss


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def preserving_trainer_state(trainer: Any) -> Iterator[None]:
    """Restore everything that a step without its update changes, even on errors.

    That is random states, gradients, TRL's running metrics, and modules' state in plain numbers and buffers: the
    mode, and the longest row that dynamic rotary embeddings have seen.
    """
    counted = {name: copy.deepcopy(getattr(trainer, name)) for name in ("_metrics", "_total_train_tokens")}
    precomputed, random_states, modules = trainer.precompute_ref_logps, random_state(), _remembered(trainer.model)
    gradients = [(weight, weight.grad) for weight in trainer.model.parameters()]
    for weight, _ in gradients:
        weight.grad = None
    try:
        yield
    finally:
        for weight, gradient in gradients:
            weight.grad = gradient
        for module, numbers, buffers in modules:
            vars(module).update(numbers)
            for name, (buffer, content) in buffers.items():
                module._buffers[name] = buffer
                buffer.copy_(content)
        vars(trainer).update(counted, precompute_ref_logps=precomputed)
        set_random_state(random_states)


def _remembered(model: PreTrainedModel) -> list[tuple[torch.nn.Module, dict[str, Any], dict[str, Any]]]:
    return [
        (
            module,
            {name: value for name, value in vars(module).items() if isinstance(value, bool | int | float)},
            {name: (part, part.clone()) for name, part in module._buffers.items() if part is not None},
        )
        for module in model.modules()
    ]
