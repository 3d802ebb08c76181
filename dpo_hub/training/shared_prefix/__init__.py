"""Runs a preference batch with shared prompts computed once, no padding, and the head on scored tokens only.

TRL asks its model for the log-probabilities of a padded batch `[2B, L]`, chosen rows above rejected ones, by
`model(..., labels=..., fused_lm_head=True)`, and reads per-token fields back in that layout. Within
`shared_prefix(model)` the same call returns the same result with less work, on a CPU in the adapted layers too. TRL's
losses, metrics and reference are unchanged. `limits` recognises models that this does not support.

Knows nothing of TRL's classes, of runs or of data.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from torch import Tensor
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func
from transformers.utils.generic import ModelOutput

from ..lora import fused_lora
from .attention import shared_prefix_attention
from .head import Head
from .plan import IGNORE_INDEX, plan_batch

ATTENTION = "shared_prefix"


@dataclass
class PerToken(ModelOutput):
    """What TRL reads from a model with a fused head: [2B, L − 1] each, zero where nothing is to be predicted."""

    log_probs: Tensor | None = None
    entropy: Tensor | None = None
    log_sum_sq_probs: Tensor | None = None
    mean_logits: Tensor | None = None
    is_top1: Tensor | None = None
    aux_loss: Tensor | None = None


@contextmanager
def shared_prefix(model: PeftModel | PreTrainedModel) -> Iterator[None]:
    """Compute calls of the fused head that TRL added to *model* this way within the context."""
    base: Any = base_of(model)
    original, usual = base.forward, base.config._attn_implementation
    AttentionInterface.register(ATTENTION, shared_prefix_attention)

    @functools.wraps(original)  # generate() reads its signature
    def forward(*args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        # Not restored at the end of the call: activation checkpointing runs layers again in the backward pass.
        base.config._attn_implementation = ATTENTION if fused_lm_head else usual
        return _score(base, **kwargs) if fused_lm_head else original(*args, **kwargs)

    base.forward = forward
    try:
        with fused_lora(base):
            yield
    finally:
        base.forward, base.config._attn_implementation = original, usual


def base_of(model: PeftModel | PreTrainedModel) -> PreTrainedModel:
    """The model under the adapter."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return base  # type: ignore[no-any-return]


def _score(
    base: PreTrainedModel, *, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **kwargs: Any
) -> PerToken:
    config = base.config
    with_router = bool(kwargs.get("output_router_logits"))
    plan = plan_batch(input_ids, attention_mask, labels, keep_last=with_router or length_sets_angles(config))
    outputs = base.base_model(
        input_ids=input_ids.flatten()[plan.source].unsqueeze(0),
        position_ids=plan.positions.unsqueeze(0),
        plan=plan,
        **kwargs,
    )
    scores = Head.of(base).score(outputs.last_hidden_state[0, plan.scored], plan.targets)
    wanted = labels[:, 1:] != IGNORE_INDEX
    log_probs, entropy, log_sum_sq_probs, mean_logits, is_top1 = (
        # masked_scatter keeps even a batch with nothing to predict in the model's autograd graph
        values.new_zeros(wanted.shape).masked_scatter(wanted, values[plan.spread])
        for values in scores
    )
    aux_loss: Any = None
    if with_router:  # count all tokens of each row, as if none were shared
        router = tuple(logits[plan.places] for logits in outputs.router_logits)
        aux_loss = load_balancing_loss_func(router, config.num_experts, config.num_experts_per_tok)
    return PerToken(log_probs, entropy, log_sum_sq_probs, mean_logits, is_top1 > 0, aux_loss)


def length_sets_angles(config: PreTrainedConfig) -> bool:
    """Whether the longest row determines the rotary angles of all rows, so that its last token must not be dropped."""
    rope: Any = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    return any(kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds)
