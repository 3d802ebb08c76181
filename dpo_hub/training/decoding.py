"""The sampling loop: several adapters in one batch, with the same random numbers for all.

Knows nothing of runs or of chat templates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any

from ..errors import needing_extra

with needing_extra("train"):
    import torch
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from peft.utils import AuxiliaryTrainingWrapper
    from torch.nn import functional

    from .lora import is_free, is_linear, is_plain
    from .matmul import default_matmul
    from .policy import UNALTERED

FEW, LARGE = 8, 200_000
"""The most rows of input, and the fewest elements of a weight matrix, for which the reversed product is faster."""
BASE = "__base__"
"""PEFT's name for the model without an adapter."""


@torch.no_grad()
def sample(
    policy: PeftModel,
    encoded: Mapping[str, torch.Tensor],
    voices: Sequence[tuple[str, int]],
    *,
    temperature: float | None,
    max_new_tokens: int,
) -> Iterator[dict[int, int]]:
    """Continue each row of *encoded*, padded on the left, with the adapter and random seed in *voices* at its place.

    *temperature* 0 takes the likeliest token; None samples the policy's own distribution, ignoring its generation
    config.

    Yields at each step the next token by row number for all unfinished rows, including end tokens.
    """
    policy.eval()
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    how = UNALTERED if temperature is None else sampling if temperature > 0 else {"do_sample": False}
    base: Any = policy.get_base_model()
    yield from base.generate(
        **encoded,
        **how,
        max_new_tokens=max_new_tokens,
        pad_token_id=0,  # never used, as finished rows leave the batch
        custom_generate=_decoding(policy, [adapter for adapter, _ in voices], [seed for _, seed in voices]),
    )


def _decoding(
    policy: PeftModel, adapters: Sequence[str], seeds: Sequence[int]
) -> Callable[..., Iterator[dict[int, int]]]:
    """The loop for `generate` to run: it yields the next token by row number for all unfinished rows.

    `generate` itself prepares the masks, positions, cache and the rules of its generation config. Finished rows leave
    the batch.
    """

    def decode(
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **state: Any,
    ) -> Iterator[dict[int, int]]:
        draw = {seed: torch.Generator(input_ids.device).manual_seed(seed) for seed in seeds}
        rows, new = list(range(len(input_ids))), None
        forwards = _forwards(policy, adapters)
        while rows:
            inputs = model.prepare_inputs_for_generation(
                input_ids, next_sequence_length=new, is_first_iteration=new is None, **state
            )
            with _in_place(forwards), default_matmul():
                outputs = model(**inputs, return_dict=True)
            state = model._update_model_kwargs_for_generation(outputs, state)
            scores = logits_processor(input_ids, outputs.logits[:, -1].float())
            if generation_config.do_sample:
                scores = scores + _noise(scores, [draw[seeds[row]] for row in rows])
            tokens = scores.argmax(-1)
            input_ids = torch.cat([input_ids, tokens[:, None]], dim=1)
            yield dict(zip(rows, tokens.tolist(), strict=True))
            going = (~stopping_criteria(input_ids, None)).nonzero()[:, 0]
            if 0 < len(going) < len(rows):
                input_ids, state = input_ids[going], _narrowed(state, going, len(rows))
                forwards = _forwards(policy, [adapters[rows[row]] for row in going.tolist()])
            rows, new = [rows[row] for row in going.tolist()], 1 if state["use_cache"] else None

    return decode


def _forwards(policy: PeftModel, adapters: Sequence[str]) -> dict[Any, Callable[..., torch.Tensor]]:
    """Return forward functions for layers of *policy* that apply each batch row's own adapter, as PEFT does.

    Plain linear layers need only a few operations; PEFT looks up the layers again at each step and copies rows out and
    back in.
    """
    spans, end = [], 0
    for name, rows in groupby(adapters):
        start, end = end, end + len(list(rows))
        spans.append((name, slice(start, end)))
    forwards = {
        layer: _with_adapters(layer, spans) if is_plain(layer) else partial(layer.forward, adapter_names=adapters)
        for layer in policy.modules()
        if isinstance(layer, (LoraLayer, AuxiliaryTrainingWrapper))
    }
    head = policy.get_output_embeddings()
    return forwards | ({head: _linear(head)} if is_linear(head) and is_free(head) else {})


@contextmanager
def _in_place(forwards: dict[Any, Callable[..., torch.Tensor]]) -> Iterator[None]:
    """Replace the layers' forward functions within the context."""
    usual = {layer: vars(layer).get("forward") for layer in forwards}
    for layer, forward in forwards.items():
        vars(layer)["forward"] = forward  # setattr would first search the layer's weights
    try:
        yield
    finally:
        for layer, forward in usual.items():
            if forward is None:
                del vars(layer)["forward"]
            else:
                vars(layer)["forward"] = forward


def _with_adapters(layer: Any, spans: list[tuple[str, slice]]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function for x W + s · x A B, where each span of rows has its own A and B, or none."""
    base = _linear(layer.base_layer) if is_linear(layer.base_layer) else layer.base_layer
    adapted = [
        (rows, layer.lora_A[name].weight.T, layer.lora_B[name].weight.T, layer.scaling[name])
        for name, rows in spans
        if name in layer.lora_A
    ]

    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = base(x)
        for rows, down, up, scale in adapted:
            low = x[rows].flatten(0, -2).to(down.dtype) @ down
            if result.dtype == up.dtype and result.is_contiguous():
                result[rows].flatten(0, -2).addmm_(low, up, alpha=scale)
            else:
                result[rows] += ((low @ up) * scale).view_as(result[rows]).to(result.dtype)
        return result

    return forward


def _linear(layer: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function equivalent to the layer.

    On a CPU, BLAS multiplies a few rows by a large matrix faster with the factors in reverse order.
    """
    usual = partial(functional.linear, weight=layer.weight, bias=layer.bias)
    if layer.weight.device.type != "cpu" or layer.weight.numel() < LARGE:
        return usual

    def forward(x: torch.Tensor) -> torch.Tensor:
        rows = x.shape[:-1].numel()
        if not 1 < rows <= FEW:
            return usual(x)
        result: torch.Tensor = (layer.weight @ x.reshape(rows, -1).T).T.contiguous().view(*x.shape[:-1], -1)
        return result if layer.bias is None else result + layer.bias

    return forward


def _noise(scores: torch.Tensor, draw: Sequence[torch.Generator]) -> torch.Tensor:
    """Gumbel noise: the argmax of log p + noise is a sample from p. Rows with the same generator get the same noise."""
    noise = {of: -torch.empty_like(scores[0]).exponential_(generator=of).log() for of in dict.fromkeys(draw)}
    return torch.stack([noise[of] for of in draw])


def _narrowed(state: dict[str, Any], rows: torch.Tensor, of: int) -> dict[str, Any]:
    """The generation state reduced from *of* rows to *rows*."""
    for kept in state.values():
        if hasattr(kept, "reorder_cache"):
            kept.reorder_cache(rows)
    return {
        name: kept[rows] if isinstance(kept, torch.Tensor) and kept.ndim and len(kept) == of else kept
        for name, kept in state.items()
    }
