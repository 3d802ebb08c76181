"""Recognises models that a shared prefix does not support: by inspection, and by running a batch both ways."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from . import base_of, shared_prefix
from .plan import IGNORE_INDEX

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""The largest mean difference between the two ways, in nats per token, that rounding explains. Correct results differ
by about 1e-6 in float32 and by a few hundredths in bfloat16; a wrong mask or position makes a larger difference."""
GRADIENT_TOLERANCE = {torch.float32: 1e-2, torch.float16: 0.1, torch.bfloat16: 0.3}
"""The same for gradients, relative to their norm. A missing part makes a difference of the order of one."""


def unsupported_reason(model: PeftModel | PreTrainedModel) -> str | None:
    """Return what is unsupported about *model*, or None. `disagreement` finds what inspection cannot."""
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


def disagreement(
    model: PeftModel | PreTrainedModel, inputs: Mapping[str, Any], *, gradient: bool = False
) -> str | None:
    """Run one batch through *model* both ways; return what goes wrong, or None if rounding explains the difference.

    Args:
        model: as TRL prepared it, outside of `shared_prefix`; its gradients are cleared.
        inputs: `input_ids`, `attention_mask` and `labels`, [2B, L] each, and TRL's other arguments.
        gradient: compare the gradients of the summed log-probabilities instead, which needs more memory.
    """
    ask = _gradient if gradient else _log_probs
    was_training = model.training
    model.eval()
    try:
        usual = ask(model, inputs)
        with shared_prefix(model):
            ours = ask(model, inputs)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    finally:
        model.zero_grad()
        model.train(was_training)
    name, unit, tolerance = (
        ("gradients", "of their size", GRADIENT_TOLERANCE)
        if gradient
        else ("log-probabilities", "nats a token", TOLERANCE)
    )
    difference = (usual - ours).norm() / usual.norm() if gradient else (usual - ours).abs().mean()
    allowed = tolerance.get(base_of(model).dtype, tolerance[torch.float32])
    if not len(usual) or difference <= allowed:
        return None
    return f"the {name} of both ways differ by {difference:.2g} {unit}, where {allowed:g} is allowed"


@torch.no_grad()
def _log_probs(model: PeftModel | PreTrainedModel, inputs: Mapping[str, Any]) -> Tensor:
    """Each scored token's log-probability, and the router loss if there is one."""
    out = model(**inputs, use_cache=False, fused_lm_head=True)
    scored = out.log_probs[inputs["labels"][:, 1:] != IGNORE_INDEX].float()
    return scored if out.aux_loss is None else torch.cat([scored, out.aux_loss.float().reshape(1)])


def _gradient(model: PeftModel | PreTrainedModel, inputs: Mapping[str, Any]) -> Tensor:
    """The gradient of the trained weights, as one flat tensor."""
    model.zero_grad()
    model(**inputs, use_cache=False, fused_lm_head=True).log_probs.sum().backward()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    flowing = (torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in trained)
    return torch.cat([gradient.flatten().float() for gradient in flowing])
