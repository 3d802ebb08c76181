"""Attention in a packed row: each row of the batch attends to its own tokens, wherever they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

from .plan import Plan


class UnsupportedError(RuntimeError):
    """The model's attention needs something that is not supported here; the message says what."""


def shared_prefix_attention(  # noqa: PLR0913  # what transformers passes
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None,
    *,
    plan: Plan,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend causally from each row's own tokens to all tokens of that row.

    Takes the arguments of a transformers attention function: query [1, H, T, D], key and value [1, H_kv, T, D]; a token
    sees itself and the `sliding_window` − 1 before it, or all before it; scores are softcap · tanh(score / softcap) if
    a `softcap` is given. Returns [1, T, H, D], and None for the weights.

    Raises:
        UnsupportedError: the model uses sinks, a position bias, or a window in a way that is not supported here.
    """
    if others.get("s_aux") is not None or others.get("position_bias") is not None:
        raise UnsupportedError("its attention has sinks or a position bias")
    if sliding_window is None and _should_slide(module):
        raise UnsupportedError("its attention has a window that it does not pass on")
    key, value = key.index_select(2, plan.keys), value.index_select(2, plan.keys)
    if not softcap and not dropout and _flash_takes(query, value):
        return _all_at_once(query, key, value, plan, scaling, sliding_window), None
    groups = query.size(1) // key.size(1)
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    queries, keys = (list(sizes) for sizes in zip(*plan.lengths, strict=True))
    outputs = []
    for q, k, v in zip(
        torch.split(query, queries, 2), torch.split(key, keys, 2), torch.split(value, keys, 2), strict=True
    ):
        if softcap:
            outputs.append(
                _capped(q * (scaling or q.size(3) ** -0.5), k, v, _mask(plan, q, k, sliding_window), softcap)
            )
            continue
        plain = q.size(2) == k.size(2) <= (sliding_window or k.size(2))
        mask = None if plain else _mask(plan, q, k, sliding_window)
        outputs.append(scaled_dot_product_attention(q, k, v, mask, is_causal=plain, dropout_p=dropout, scale=scaling))
    return torch.cat(outputs, 2).transpose(1, 2), None


def _should_slide(module: Any) -> bool:
    config = module.config
    layers = getattr(config, "layer_types", None)
    slides = not layers or layers[module.layer_idx] == "sliding_attention"
    return slides and getattr(config, "sliding_window", None) is not None


def _flash_takes(query: Tensor, value: Tensor) -> bool:
    """Whether flash attention supports heads of this kind on this device."""
    width = query.size(3)
    return (
        query.is_cuda
        and query.dtype == value.dtype in (torch.bfloat16, torch.float16)
        and width == value.size(3) <= 256
        and width % 8 == 0
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _all_at_once(  # noqa: PLR0913, PLR0917
    query: Tensor, key: Tensor, value: Tensor, plan: Plan, scaling: float | None, window: int | None
) -> Tensor:
    """Flash attention over rows of any length in one call; it expects queries and keys to end at the same token."""
    queries, keys = plan.offsets
    most_queries, most_keys = (max(sizes) for sizes in zip(*plan.lengths, strict=True))
    attended: Any = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        queries,
        keys,
        most_queries,
        most_keys,
        scale=scaling,
        window_size=(window - 1 if window else -1, 0),
        enable_gqa=query.size(1) != key.size(1),
    )
    return attended.unsqueeze(0)  # type: ignore[no-any-return]


def _capped(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, softcap: float) -> Tensor:
    scores = softcap * torch.tanh(query @ key.transpose(2, 3) / softcap)
    return scores.masked_fill(~mask, -torch.inf).softmax(-1, dtype=torch.float32).to(query.dtype) @ value


def _mask(plan: Plan, query: Tensor, key: Tensor, window: int | None) -> Tensor:
    """[queries, keys]: whether the query sees the key. The last query and the last key are the same token."""
    queries, keys = query.size(2), key.size(2)
    shape = queries, keys, min(window or keys, keys)
    if shape not in plan.masks:
        causal = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
        plan.masks[shape] = causal.triu(keys - queries - shape[2] + 1)
    return plan.masks[shape]
