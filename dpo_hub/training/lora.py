"""LoRA's adapted linear layers in fewer operations than PEFT's: on a CPU each operation is a pass over all tokens.

Knows nothing of what the layers are part of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


class Adapted(torch.autograd.Function):
    """x Wᵀ + b + s · x Aᵀ Bᵀ, where W and b are not trained (Hu et al. 2021, arXiv:2106.09685, section 4.1).

    x is [..., in], W [out, in], b [out] or None, A [r, in], B [out, r]. The adapter's product is scaled and added in
    place as it is computed, and so is its part of x's gradient; PEFT computes, scales and adds each separately.
    """

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917  # as autograd passes them
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        """Return [..., out]."""
        rows = x.reshape(-1, x.size(-1))
        low = rows @ down.T
        ctx.save_for_backward(rows, low, weight, down, up)
        ctx.scale, ctx.shape = scale, x.shape
        return functional.linear(rows, weight, bias).addmm_(low, up.T, alpha=scale).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        """Return the gradients of x, A and B."""
        rows, low, weight, down, up = ctx.saved_tensors
        grad_output = grad_output.reshape(-1, grad_output.size(-1))
        into_low = (grad_output @ up).mul_(ctx.scale)
        of_x = (grad_output @ weight).addmm_(into_low, down).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return of_x, None, None, into_low.T @ rows, (grad_output.T @ low).mul_(ctx.scale), None


@contextmanager
def fused_lora(model: torch.nn.Module) -> Iterator[None]:
    """Compute the plain adapted layers of *model* on a CPU this way within the context."""
    layers = [layer for layer in model.modules() if is_plain(layer) and _fits(layer)]
    for layer in layers:
        layer.forward = partial(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def is_plain(layer: Any) -> bool:
    """Whether plain LoRA, not one of its variants, adapts the layer."""
    return isinstance(layer, Linear) and not layer.lora_variant and not any(layer.lora_bias.values()) and is_free(layer)


def is_free(layer: Any) -> bool:
    """Whether nothing else has replaced the layer's forward, as accelerate does on several devices."""
    return getattr(vars(layer).get("forward", partial(_forward)), "func", None) is _forward


def is_linear(layer: Any) -> bool:
    """Whether the layer is torch's own linear layer."""
    return type(layer) is torch.nn.Linear


def _fits(layer: Any) -> bool:
    """Whether `Adapted` can compute the layer: no dropout, nothing trained but A and B, float32 on a CPU."""
    return (
        "forward" not in vars(layer)
        and is_linear(layer.base_layer)
        and not any(weight.requires_grad for weight in layer.base_layer.parameters())
        and all(isinstance(dropout, torch.nn.Identity) for dropout in layer.lora_dropout.values())
        and all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in layer.parameters())
    )


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    names = layer.active_adapters
    if args or kwargs or layer.disable_adapters or layer.merged or len(names) != 1 or names[0] not in layer.lora_A:
        usual: Tensor = type(layer).forward(layer, x, *args, **kwargs)
        return usual
    base, down, up = layer.base_layer, layer.lora_A[names[0]].weight, layer.lora_B[names[0]].weight
    result: Tensor = Adapted.apply(  # type: ignore[no-untyped-call]
        x, base.weight, base.bias, down, up, layer.scaling[names[0]]
    )
    return result
