"""What a prepared trainer will take: memory, disk, tokens. Measured on one pair, then scaled. Knows nothing of runs.

*trainer* is a `DPOTrainer` as `trainer.prepare` makes it, within `shared_prefix` where that is the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..recipe import SHARED_PREFIX, Recipe
from .machine import free_disk
from .memory import free_bytes, held_bytes, peak_bytes
from .rehearsal import OPTIMIZER_STATES, Kept, kept_by
from .shared_prefix.head import LOGITS_AT_ONCE
from .tokens import Batches, batches_of, count_scored, count_tokens, pairs_at

PROBE_SHARE = 0.25
"""A longer pair is measured only where it will take no more than this share of the free memory."""
HOLES = 0.8
"""On a CPU freed memory is kept for later tensors, but glibc fits no aligned block where one of the same size was, so
what comes and goes between activations adds to them: 0.7 times theirs on models of 30 and 135 million parameters, more
on the demo's (benchmarks/memory.py)."""
ROOM = 0.8
"""The share of the free memory that a run should take at most. Nobody else should run out, and forecasts err."""
PLENTY = 0.5
"""Where a run takes less than this share of the free memory, there is no need to rehearse its largest batch."""
TRL_TILE = 4096
"""TRL's own head has the logits of so many scored tokens in memory at a time."""
CHECKPOINTS = 3
"""Two resume points are kept, and there is a third while it is written."""
LOGGED = 1000
"""Bytes that a step's metrics take in a log or a checkpoint."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak, by what they are for."""

    weights: int
    """The base model."""
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    """What the forward pass over the largest batch leaves for the backward pass."""
    working: int
    """What a step has beside that at its peak: logits, and gradients on their way."""
    holes: int
    """Freed memory that is kept and does not fit what comes next; 0 on CUDA, whose allocator has few."""
    process: int
    """On a CPU, what Python and the libraries take; 0 on CUDA."""
    earlier: int
    """What the process held at most until now, loading and checking the model."""
    held: int
    """What it holds now."""
    free: int
    """What it may take beside that."""

    @property
    def training(self) -> int:
        """What the process will take at most from here on."""
        parts = (self.weights, self.adapter, self.gradients, self.optimizer, self.activations, self.working)
        return sum(parts) + self.holes + self.process

    @property
    def peak(self) -> int:
        """What the process will take at most in its life."""
        return max(self.training, self.earlier)

    @property
    def to_come(self) -> int:
        """What will be taken for certain beside what is held now."""
        return self.gradients + self.optimizer + self.activations + self.working

    @property
    def is_tight(self) -> bool:
        """Whether the run will take more than it should."""
        return self.to_come + self.holes > ROOM * self.free

    @property
    def needs_rehearsal(self) -> bool:
        """Whether the forecast alone should not be relied on."""
        return self.to_come + self.holes > PLENTY * self.free


@dataclass(frozen=True)
class Disk:
    """Bytes that a run will write at most, and what is free where it will."""

    needed: int
    free: int


@dataclass(frozen=True)
class Outlook:
    """What a run will take, as far as that can be told before its first step."""

    device: str
    engine: str
    parameters: int
    trainable: int
    memory: Memory
    disk: Disk
    batches: Batches
    fitting_batch_size: int
    """The largest part of the batch that fits into the free memory; 0 where not even one pair does."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the figures, without the pairs of each batch."""
        batches = self.batches
        told = ("count", "steps", "most_tokens", "tokens")
        return asdict(self) | {
            "memory": asdict(self.memory) | {"training": self.memory.training, "peak": self.memory.peak},
            "batches": {name: getattr(batches, name) for name in told},
        }


def forecast(trainer: Any, recipe: Recipe, folder: Path) -> Outlook:
    """Look ahead at a run of *recipe* that will write under *folder*; *trainer* is left as it was.

    The tensors of a step are counted on the shortest pair and, where that is sure to fit, on a long one. They grow with
    the tokens; only logits do not beyond what the head takes at a time.

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


def _measured(trainer: Any, recipe: Recipe, batches: Batches) -> tuple[Kept, int, int]:
    """What a step over one pair holds, its tokens, and how many of them are scored."""
    free, found = free_bytes(trainer.accelerator.device), None
    longest = max(batches.largest, key=batches.pair_tokens.__getitem__)
    for place in (batches.shortest, longest):
        pairs = pairs_at(trainer.train_dataset, [place])
        tokens = count_tokens(pairs, recipe)
        if found and found[0].activations / found[1] * tokens > PROBE_SHARE * free:
            break
        found = kept_by(trainer, pairs), tokens, max(1, count_scored(pairs, recipe))
    assert found
    return found


def _parts(batches: Batches, recipe: Recipe) -> Iterator[tuple[int, int]]:
    """The batch sizes that divide the recipe's, the largest first, and the most tokens that such a batch may have."""
    whole, sizes = recipe.batch_size, sorted(batches.pair_tokens, reverse=True)
    yield whole, batches.most_tokens
    for size in range(whole // 2, 0, -1):
        if whole % size == 0:
            most = sum(sizes[:size]) if recipe.engine == SHARED_PREFIX else size * sizes[0]
            yield size, min(most, batches.most_tokens)


def _to_write(adapter: int, tokenizer: Any, steps: int) -> int:
    """Bytes of the checkpoints and of what is left when a run has finished."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = len(backend.to_str(pretty=True).encode()) if backend else 32 * len(tokenizer)
    checkpoint = (1 + OPTIMIZER_STATES) * adapter + words + LOGGED * steps
    return CHECKPOINTS * checkpoint + adapter + words + LOGGED * steps
