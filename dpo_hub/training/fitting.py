"""Makes a prepared trainer fit into memory: recomputes activations if needed, and rehearses if that is uncertain."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

from ..errors import needing_extra
from ..recipe import Recipe
from .forecast import Outlook, forecast
from .measuring import precomputes_train_reference
from .rehearsal import rehearse
from .tokens import pairs_at
from .trainer import PreferenceTrainer, splits

with needing_extra("train"):
    from peft import PeftModel
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


def fit_to_memory(trainer: PreferenceTrainer, recipe: Recipe, folder: Path) -> Outlook:
    """Forecast the run's needs; recompute activations in the backward pass if memory would be tight otherwise."""
    outlook = forecast(trainer, recipe, folder)
    if not outlook.memory.is_tight or not enable_activation_checkpointing(trainer):
        return outlook
    sizes = outlook.memory.activations / 1e9, outlook.memory.free / 1e9
    log.info("activations would take %.1f GB of %.1f GB: they will be computed twice", *sizes)
    return forecast(trainer, recipe, folder)


def enable_activation_checkpointing(trainer: PreferenceTrainer) -> bool:
    """Recompute activations in the backward pass if the model supports it; return whether it does."""
    policy = cast(PeftModel, trainer.model)
    base = cast(PreTrainedModel, policy.get_base_model())
    if not base.supports_gradient_checkpointing:
        return False
    trainer.args.activation_checkpointing = True
    policy.enable_input_require_grads()
    base.activation_checkpointing_enable()  # training does this too; here for the steps rehearsed before it
    return True


def rehearse_largest(trainer: PreferenceTrainer, recipe: Recipe, outlook: Outlook) -> None:
    """Rehearse two steps over the largest batch if the forecast alone is not reliable enough.

    Raises:
        torch.OutOfMemoryError: they do not fit into the device's memory.
    """
    if trainer.accelerator.device.type == "cuda" or outlook.memory.needs_rehearsal:
        largest = pairs_at(splits(trainer)[0], outlook.batches.largest)
        took = rehearse(trainer, [largest] * 2, reference_known=precomputes_train_reference(trainer, recipe))
        log.info("two steps over the longest rows: %.1f GB at most, %.2g s each", took.peak / 1e9, took.seconds)
