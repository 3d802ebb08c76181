"""Forecasts a prepared trainer's memory, disk use and tokens: measured on one pair, then scaled. Knows nothing of runs.

*trainer* is a `DPOTrainer` from `trainer.prepare`, within `shared_prefix` if that is the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..recipe import SHARED_PREFIX, Recipe
from .machine import free_disk
from .memory import free_bytes, held_bytes, peak_bytes
from .rehearsal import OPTIMIZER_STATES, StepMemory, measure_step_memory
from .shared_prefix.head import LOGITS_AT_ONCE
from .tokens import Batches, batches_of, count_scored, count_tokens, pairs_at

PROBE_SHARE = 0.25
"""A longer pair is measured only if it will use no more than this share of the free memory."""
HOLES = 0.8
"""On a CPU freed memory is kept for later tensors, but glibc cannot place an aligned block where one of the same size
was, so temporary tensors between activations leave holes: 0.7 times the activations on models of 30 and 135 million
parameters, more on the demo model (benchmarks/memory.py)."""
SAFE_MEMORY_SHARE = 0.8
"""The largest share of the free memory that a run should use: other programs need some, and forecasts err."""
PLENTY = 0.5
"""If a run uses no more than this share of the free memory, its largest batch need not be rehearsed."""
TRL_TILE = 4096
"""The number of scored tokens whose logits TRL's own head holds in memory at a time."""
CHECKPOINTS = 3
"""Two checkpoints are kept, and a third exists while it is being written."""
LOGGED = 1000
"""Bytes of a step's metrics in a log or a checkpoint."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak, by purpose."""

    weights: int
    """The base model."""
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    """Tensors that the forward pass over the largest batch saves for the backward pass."""
    working: int
    """Other tensors at a step's peak: logits and intermediate gradients."""
    holes: int
    """Freed memory that is kept but does not fit later tensors; 0 on CUDA, whose allocator leaves little."""
    process: int
    """On a CPU, the memory of Python and the libraries; 0 on CUDA."""
    earlier: int
    """The process's peak so far, from loading and checking the model."""
    held: int
    """Memory that the process holds now."""
    free: int
    """Memory that it can still get."""

    @property
    def training(self) -> int:
        """The process's peak from here on."""
        parts = (self.weights, self.adapter, self.gradients, self.optimizer, self.activations, self.working)
        return sum(parts) + self.holes + self.process

    @property
    def peak(self) -> int:
        """The process's peak over its lifetime."""
        return max(self.training, self.earlier)

    @property
    def to_come(self) -> int:
        """Memory that will certainly be needed beyond what is held now."""
        return self.gradients + self.optimizer + self.activations + self.working

    @property
    def is_tight(self) -> bool:
        """Whether the run may use more than `SAFE_MEMORY_SHARE` allows."""
        return self.to_come + self.holes > SAFE_MEMORY_SHARE * self.free

    @property
    def needs_rehearsal(self) -> bool:
        """Whether the forecast alone is not reliable enough."""
        return self.to_come + self.holes > PLENTY * self.free


@dataclass(frozen=True)
class Disk:
    """The most bytes that a run will write, and the bytes free there."""

    needed: int
    free: int


@dataclass(frozen=True)
class Outlook:
    """What a run will need, as far as can be known before its first step."""

    device: str
    engine: str
    parameters: int
    trainable: int
    memory: Memory
    disk: Disk
    batches: Batches
    fitting_batch_size: int
    """The largest divisor of the batch size that fits into the free memory; 0 if not even one pair does."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the figures, without the pairs of each batch."""
        batches = self.batches
        told = ("count", "steps", "most_tokens", "tokens")
        return asdict(self) | {
            "memory": asdict(self.memory) | {"training": self.memory.training, "peak": self.memory.peak},
            "batches": {name: getattr(batches, name) for name in told},
        }


def forecast(trainer: Any, recipe: Recipe, folder: Path) -> Outlook:
    """Forecast a run of *recipe* that will write under *folder*; *trainer* is left unchanged.

    The tensors of a step are counted on the shortest pair and, if it is sure to fit, on a long one. They scale with the
    number of tokens, except logits, of which the head holds a limited number at a time.

    Raises:
        torch.OutOfMemoryError: not even the shortest pair fits.
    """
    batches, device = batches_of(trainer, recipe), trainer.accelerator.device
    kept, tokens, scored = _measured(trainer, recipe, batches)
    held = held_bytes(device)
    counts = [(weight.nbytes, weight.numel(), weight.requires_grad) for weight in trainer.model.parameters()]
    adapter = sum(size for size, _, trained in counts if trained)
    weights = sum(size for size, _, trained in counts if not trained)
    tile = LOGITS_AT_ONCE.get(device.type, 2**24) // trainer.model.config.get_text_config().vocab_size
    at_once = tile if recipe.engine == SHARED_PREFIX else TRL_TILE

    def memory(of_tokens: int) -> Memory:
        scale = of_tokens / tokens
        head = min(scale, max(1, at_once / scored))
        step = round(kept.activations * scale), round(max(kept.forward_extra * head, kept.backward_extra * scale))
        return Memory(
            weights=weights,
            adapter=adapter,
            gradients=adapter,
            optimizer=OPTIMIZER_STATES * adapter,
            activations=step[0],
            working=step[1],
            holes=round(HOLES * step[0]) if device.type == "cpu" else 0,
            process=max(0, held - weights - adapter) if device.type == "cpu" else 0,
            earlier=peak_bytes(device),
            held=held,
            free=free_bytes(device),
        )

    return Outlook(
        device=device.type,
        engine=recipe.engine,
        parameters=sum(number for _, number, _ in counts),
        trainable=sum(number for _, number, trained in counts if trained),
        memory=memory(batches.most_tokens),
        disk=Disk(_to_write(adapter, trainer.processing_class, batches.steps), free_disk(folder)),
        batches=batches,
        fitting_batch_size=next(
            (size for size, most in _parts(batches, recipe) if (part := memory(most)).to_come <= part.free), 0
        ),
    )


def _measured(trainer: Any, recipe: Recipe, batches: Batches) -> tuple[StepMemory, int, int]:
    """The memory of a step over one pair, the number of its tokens, and how many of them are scored."""
    free, found = free_bytes(trainer.accelerator.device), None
    longest = max(batches.largest, key=batches.pair_tokens.__getitem__)
    for place in (batches.shortest, longest):
        pairs = pairs_at(trainer.train_dataset, [place])
        tokens = count_tokens(pairs, recipe)
        if found and found[0].activations / found[1] * tokens > PROBE_SHARE * free:
            break
        found = measure_step_memory(trainer, pairs), tokens, max(1, count_scored(pairs, recipe))
    assert found
    return found


def _parts(batches: Batches, recipe: Recipe) -> Iterator[tuple[int, int]]:
    """The batch sizes that divide the recipe's, largest first, each with the most tokens that such a batch can have."""
    whole, sizes = recipe.batch_size, sorted(batches.pair_tokens, reverse=True)
    yield whole, batches.most_tokens
    for size in range(whole // 2, 0, -1):
        if whole % size == 0:
            most = sum(sizes[:size]) if recipe.engine == SHARED_PREFIX else size * sizes[0]
            yield size, min(most, batches.most_tokens)


def _to_write(adapter: int, tokenizer: Any, steps: int) -> int:
    """Bytes of the checkpoints and of the files that a finished run keeps."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = len(backend.to_str(pretty=True).encode()) if backend else 32 * len(tokenizer)
    checkpoint = (1 + OPTIMIZER_STATES) * adapter + words + LOGGED * steps
    return CHECKPOINTS * checkpoint + adapter + words + LOGGED * steps
