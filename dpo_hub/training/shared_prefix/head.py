"""A frozen LM head's scores of each target, and their gradient, in one pass over the logits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

LOGITS_AT_ONCE = {"cpu": 2**22, "cuda": 2**26}
"""The number of logits in memory at a time: few enough for a CPU's cache, enough to keep a GPU busy."""


@dataclass(frozen=True)
class Head:
    """A model's last step: logits = cap · tanh(scale · (W h + b) / cap), or without the cap."""

    weight: Tensor
    """[V, H], frozen; `score` converts it to the dtype of the hidden states."""
    bias: Tensor | None
    """[V]."""
    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, model: PreTrainedModel) -> Head:
        """The head of *model*; gathered if FSDP keeps a part of it on each process."""
        layer: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        weight, bias = (
            part.full_tensor() if isinstance(part, DTensor) else part for part in (layer.weight, layer.bias)
        )
        config = model.config
        # Cohere multiplies, Granite divides
        scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
        return cls(weight, bias, scale, getattr(config, "final_logit_softcapping", None))

    def score(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return the fields of `TokenScores`, [N] each, for hidden [N, H] and targets [N]."""
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        with torch.autocast(kind, enabled=False):  # it would round the statistics, too
            head = replace(self, weight=self.weight.to(dtype))
            return TokenScores.apply(hidden.to(dtype), head, targets)  # type: ignore[no-untyped-call, no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """Return [n, V] in float32 for hidden [n, H]."""
        if hidden.is_cuda and hidden.dtype != torch.float32:
            logits = torch.mm(hidden, self.weight.t(), out_dtype=torch.float32)
        else:
            logits = torch.mm(hidden, self.weight.t()).float()
        if self.bias is not None:
            logits += self.bias
        if self.scale != 1:
            logits *= self.scale
        return self.softcap * torch.tanh(logits / self.softcap) if self.softcap else logits

    def pull_back(self, gradient: Tensor, logits: Tensor) -> Tensor:
        """Turn a gradient with respect to the logits, [n, V], into one with respect to hidden, [n, H]."""
        if self.softcap:
            gradient *= 1 - (logits / self.softcap) ** 2
        if self.scale != 1:
            gradient *= self.scale
        return gradient.to(self.weight.dtype) @ self.weight


class TokenScores(torch.autograd.Function):
    """For each target: log-probability, entropy, log Σ p², mean logit, and whether it is the likeliest.

    With a frozen head the gradient of a log-probability with respect to the hidden state is W[target] − Wᵀp. It needs
    only p, so it is computed while the logits are available, and the backward pass only scales it: two matrix
    products per token, not three. Only the log-probability has a gradient.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Head, targets: Tensor) -> tuple[Tensor, ...]:
        """Take hidden [N, H] and targets [N]; return five tensors [N], in float32."""
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        fields = hidden.new_empty(5, len(hidden), dtype=torch.float32)
        rows = max(1, LOGITS_AT_ONCE.get(hidden.device.type, 2**24) // len(head.weight))
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            target = targets[part, None]
            logits = head.logits(hidden[part])
            probs, fields[:, part] = _statistics(logits, target)
            if gradient is not None:
                wanted_less_probs = probs.neg_().scatter_add_(1, target, torch.ones_like(probs[:, :1]))
                gradient[part] = head.pull_back(wanted_less_probs, logits)
        ctx.save_for_backward(gradient)
        log_probs, *others = fields.unbind()
        ctx.mark_non_differentiable(*others)
        return log_probs, *others

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradient saved by the forward pass."""
        (gradient,) = ctx.saved_tensors
        return (gradient * grads[0].unsqueeze(1)).to(gradient.dtype), None, None


def _statistics(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The probabilities, [n, V], and the fields of `TokenScores`, [5, n], for targets [n, 1]."""
    highest, likeliest = logits.max(1, keepdim=True)
    probs = logits.softmax(1)
    log_total = highest - probs.gather(1, likeliest).log()
    fields = (
        logits.gather(1, targets) - log_total,
        log_total - _dot(probs, logits),
        _dot(probs, probs).log(),
        logits.mean(1, keepdim=True),
        likeliest == targets,
    )
    return probs, torch.cat([values.float() for values in fields], 1).T


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return torch.bmm(one.unsqueeze(1), other.unsqueeze(2)).squeeze(2)
