"""What a prepared trainer measures without training: reference log-probabilities in advance, and held-out pairs."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import cast

from ..errors import needing_extra
from ..recipe import Recipe
from ..runs.run import home
from .metrics import evaluation
from .policy import REFERENCE_ADAPTER, device, dtype
from .processes import WORLD_SIZE
from .reference import TOKEN_PARTS, Figures, Tokens, fingerprint, reference_log_probs
from .shared_prefix import length_sets_angles
from .trainer import PreferenceTrainer, collated, splits

with needing_extra("train"):
    import torch
    from datasets import Dataset, concatenate_datasets
    from peft import PeftModel
    from transformers import PreTrainedModel

COMPUTING = ("dpo_hub", "trl", "transformers", "peft", "torch")
"""The packages whose versions may affect a log-probability."""


def can_precompute_reference(trainer: PreferenceTrainer) -> bool:
    """Whether the reference log-probabilities of a pair are the same in any batch."""
    return not length_sets_angles(cast(PeftModel, trainer.model).config)


def precomputes_train_reference(trainer: PreferenceTrainer, recipe: Recipe) -> bool:
    """Whether the reference is measured in advance for the training pairs: if all of them will be needed."""
    return recipe.epochs >= 1 and can_precompute_reference(trainer)


def precompute_reference(trainer: PreferenceTrainer, recipe: Recipe) -> None:
    """Add reference log-probabilities to the held-out pairs, and to the training pairs if all of them will be seen.

    Evaluations, and then steps too, need not run the reference again.
    """
    train, held_out = splits(trainer)
    ahead = [train, held_out] if precomputes_train_reference(trainer, recipe) else [held_out]
    batch_size = trainer.args.per_device_eval_batch_size
    policy = cast(PeftModel, trainer.model).eval()  # as TRL does when it precomputes; training restores the mode

    def measure(pairs: list[Tokens]) -> torch.Tensor:
        batch = collated(trainer, pairs)
        return torch.stack(trainer.compute_ref_log_probs(policy, batch), 1)  # type: ignore[no-untyped-call]

    measured = reference_log_probs(
        concatenate_datasets(ahead).select_columns(list(TOKEN_PARTS)),
        measure,
        key=[
            fingerprint(cast(PreTrainedModel, policy.get_base_model()), REFERENCE_ADAPTER),
            *(f"{package} {version(package)}" for package in COMPUTING),
            f"{recipe.engine} {recipe.max_length} {batch_size} {dtype()} {device().type}",
        ],
        folder=home() / "cache" / "reference",
        batch_size=batch_size,
    )
    trainer.eval_dataset = _with_reference(held_out, measured[-len(held_out) :])
    if len(measured) > len(held_out):
        trainer.train_dataset = _with_reference(train, measured[: len(train)])


def _with_reference(pairs: Dataset, measured: Figures) -> Dataset:
    chosen, rejected = measured.T
    return pairs.add_column("ref_chosen_logps", chosen).add_column("ref_rejected_logps", rejected)


def evaluate(trainer: PreferenceTrainer, *, most: int | None = None) -> dict[str, float]:
    """Measure the held-out pairs, or the first *most*, all with equal weight. *trainer* keeps their margins.

    TRL averages over batches, so batches of different sizes are measured separately and weighted by their pairs.
    """
    trainer.margins = ()
    _, every = splits(trainer)
    count, batch_size = min(most or len(every), len(every)), trainer.args.per_device_eval_batch_size
    logs = []
    try:
        for pairs, size, weight in even_parts(count, batch_size, WORLD_SIZE):
            trainer.eval_dataset, trainer.args.per_device_eval_batch_size = every.select(pairs), size
            logs.append((weight, trainer.evaluate()))
    finally:
        trainer.eval_dataset, trainer.args.per_device_eval_batch_size = every, batch_size
    keys = logs[0][1].keys() & logs[-1][1].keys()
    return evaluation({key: sum(weight * log[key] for weight, log in logs) / count for key in keys}, count)


def even_parts(count: int, batch_size: int, processes: int) -> Iterator[tuple[list[int], int, int]]:
    """Divide *count* pairs into parts within which all batches of all processes have the same size.

    Yields the pairs of a part, its batch size, and how many distinct pairs it has: the pairs left over at the end are
    measured one by one, by every process.
    """
    full = count - count % (batch_size * processes)
    each = (count - full) // processes
    shared = full + each * processes
    if full:
        yield [*range(full)], batch_size, full
    if each:
        yield [*range(full, shared)], each, shared - full
    for pair in range(shared, count):
        yield [pair] * processes, 1, 1
