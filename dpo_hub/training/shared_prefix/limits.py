"""The models that a shared prefix cannot serve: told by looking at them, and by putting a batch through both ways."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from . import base_of, shared_prefix
from .plan import IGNORED

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""The mean difference between both ways, in nats a token, that rounding explains. Two right ways differ by about 1e-6
in float32 and by some hundredths in bfloat16; a wrong mask or position makes more of it."""


def why_not(model: PeftModel | PreTrainedModel) -> str | None:
    """Say what about *model* cannot be served, or None. What cannot be seen from outside is for `disagreement`."""
    base = base_of(model)
    config = base.config
    adapters = model.peft_config.values() if isinstance(model, PeftModel) else ()
    layers = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    head: Any = base.get_output_embeddings()  # type: ignore[no-untyped-call]
    weight = getattr(head, "weight", None)
    reasons = {
        "its adapter learns a prompt": any(adapter.is_prompt_learning for adapter in adapters),
        "it is made of several models": config.get_text_config() is not config or config.is_encoder_decoder,
        f"it has layers of the kind {', '.join(sorted(layers))}": bool(layers),
        "its attention cannot be exchanged": not (base._supports_attention_backend and base._supports_flash_attn),
        "its tokens see what comes after them": not getattr(config, "is_causal", True)
        or bool(getattr(config, "use_bidirectional_attention", False)),
        "it takes no positions": "position_ids" not in inspect.signature(base.base_model.forward).parameters,
        "it has no head": head is None,
        "its head is quantised, or spread over processes": not isinstance(weight, Tensor)
        or not weight.is_floating_point()
        or hasattr(weight, "ds_id"),
        "its head is trained": head is not None and any(part.requires_grad for part in head.parameters()),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


@torch.no_grad()
def disagreement(model: PeftModel | PreTrainedModel, inputs: Mapping[str, Tensor]) -> str | None:
    """Put one batch through *model* both ways; say what goes wrong, or None where rounding explains the difference.

    Args:
        model: as TRL prepared it, outside of `shared_prefix`.
        inputs: `input_ids`, `attention_mask` and `labels`, [2B, L] each, and what else TRL asks with.
    """
    asked: dict[str, Any] = {**inputs, "use_cache": False, "fused_lm_head": True}
    was_training = model.training
    model.eval()
    try:
        usual = model(**asked)
        with shared_prefix(model):
            ours = model(**asked)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    finally:
        model.train(was_training)
    wanted = inputs["labels"][:, 1:] != IGNORED
    difference = (usual.log_probs - ours.log_probs).abs().sum().item() / max(1, int(wanted.sum()))
    if usual.aux_loss is not None:
        difference = max(difference, abs(float(usual.aux_loss - ours.aux_loss)))
    allowed = TOLERANCE.get(base_of(model).dtype, TOLERANCE[torch.float32])
    if difference <= allowed:
        return None
    return f"both ways differ by {difference:.2g} nats a token, where {allowed:g} is allowed"
