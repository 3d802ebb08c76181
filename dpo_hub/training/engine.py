"""What computes the log-probabilities: the shared prefix, or plain TRL for models that it does not support."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, cast

from ..errors import needing_extra
from ..recipe import SHARED_PREFIX, TRL, Recipe
from .shared_prefix import shared_prefix
from .shared_prefix.limits import disagreement, unsupported_reason
from .shared_prefix.plan import IGNORE_INDEX
from .tokens import rows_of
from .trainer import PreferenceTrainer, collated, splits

with needing_extra("train"):
    from peft import PeftModel

log = logging.getLogger(__name__)


def choose_engine(trainer: PreferenceTrainer, recipe: Recipe) -> tuple[Recipe, str]:
    """Choose what computes the log-probabilities; also return the engine's name, with the reason if it is TRL."""
    if recipe.engine == TRL:
        return recipe, "trl, as asked"
    policy = cast(PeftModel, trainer.model)
    reason = unsupported_reason(policy)
    if reason is None:
        longest, first, shortest = _test_pairs(trainer)
        with trainer.accelerator.autocast():
            reason = disagreement(policy, _model_inputs(trainer, [longest, first])) or disagreement(
                policy, _model_inputs(trainer, [shortest]), gradient=True
            )
    if reason is None:
        return recipe, SHARED_PREFIX
    log.warning("the shared prefix cannot serve this model (%s); plain TRL trains it, which is slower", reason)
    return replace(recipe, engine=TRL), f"trl: {reason}"


def _test_pairs(trainer: PreferenceTrainer) -> tuple[Any, Any, Any]:
    """The longest pair, which reveals sliding windows, the first, and the shortest, whose gradient costs the least."""
    train, _ = splits(trainer)
    sizes = [sum(map(len, rows_of(pair))) for pair in train]
    return train[sizes.index(max(sizes))], train[0], train[sizes.index(min(sizes))]


def _model_inputs(trainer: PreferenceTrainer, pairs: list[Any]) -> dict[str, Any]:
    """The model inputs that TRL would pass for these pairs."""
    batch = collated(trainer, pairs)
    labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, IGNORE_INDEX)
    return batch | {"labels": labels} | ({"output_router_logits": True} if trainer.aux_loss_enabled else {})


def using_engine(trainer: PreferenceTrainer, recipe: Recipe) -> AbstractContextManager[None]:
    """Compute log-probabilities as `choose_engine` decided, within the context."""
    return shared_prefix(cast(PeftModel, trainer.model)) if recipe.engine == SHARED_PREFIX else nullcontext()
