"""The loop that writes replies: several adapters in one batch, the same random numbers for all, text as it comes.

Knows nothing of runs or of chat templates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    from transformers import PreTrainedTokenizerBase

    from ..training.lora import is_free, is_linear, is_plain

FEW, LARGE = 8, 200_000
"""The most rows, and the fewest numbers in a matrix, with which turning the product round pays."""
BASE = "__base__"
"""As which PEFT knows the model without an adapter."""
UNFINISHED = "\ufffd"
"""What the first bytes of a character decode to as long as the others are missing."""


def decoding(
    policy: PeftModel, adapters: Sequence[str], seeds: Sequence[int]
) -> Callable[..., Iterator[dict[int, int]]]:
    """The loop that `generate` is to run: it yields the next token of each row that has not ended, by its number.

    `generate` itself prepares the masks, positions, cache and rules of its generation config. Rows that end leave.
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
        layers = [layer for layer in policy.modules() if isinstance(layer, (LoraLayer, AuxiliaryTrainingWrapper))]
        plain = [layer for layer in layers if is_plain(layer)]
        others = [layer for layer in layers if not is_plain(layer)]
        head = model.get_output_embeddings()
        rows, new = list(range(len(input_ids))), None
        while rows:
            inputs = model.prepare_inputs_for_generation(
                input_ids, next_sequence_length=new, is_first_iteration=new is None, **state
            )
            with _adapted(plain, others, head, [adapters[row] for row in rows]):
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
            rows, new = [rows[row] for row in going.tolist()], 1 if state["use_cache"] else None

    return decode


@contextmanager
def _adapted(plain: Sequence[Any], others: Sequence[Any], head: Any, adapters: list[str]) -> Iterator[None]:
    """Let each row of a batch have its own adapter, as PEFT does, and take the short way where there is one.

    Plain linear layers do in a few operations what PEFT does in many, which seeks the layers anew at each step and
    copies rows out and back in.
    """
    spans, end = [], 0
    for name, rows in groupby(adapters):
        start, end = end, end + len(list(rows))
        spans.append((name, slice(start, end)))
    hooks = [layer.register_forward_pre_hook(partial(_name, adapters), with_kwargs=True) for layer in others]
    changed = [*plain, head] if is_linear(head) and is_free(head) else plain
    for layer in changed:
        layer.forward = partial(_linear, layer) if layer is head else partial(_with_adapters, layer, spans)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in changed:
            del layer.forward


def _name(adapters: list[str], _layer: Any, args: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, options | {"adapter_names": adapters}


def _with_adapters(layer: Any, spans: list[tuple[str, slice]], x: torch.Tensor) -> torch.Tensor:
    """Compute x W + s · x A B, where each span of rows has an A and a B of its own or none."""
    result = _linear(layer.base_layer, x) if is_linear(layer.base_layer) else layer.base_layer(x)
    for name, rows in spans:
        if name in layer.lora_A:
            down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
            low = x[rows].flatten(0, -2).to(down.dtype) @ down.T
            if result.dtype == up.dtype and result.is_contiguous():
                result[rows].flatten(0, -2).addmm_(low, up.T, alpha=layer.scaling[name])
            else:
                result[rows] += ((low @ up.T) * layer.scaling[name]).view_as(result[rows]).to(result.dtype)
    return result


def _linear(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """The same as the layer; on a CPU, BLAS multiplies a few rows with a large matrix faster the other way round."""
    rows = x.shape[:-1].numel()
    if x.device.type != "cpu" or not 1 < rows <= FEW or layer.weight.numel() < LARGE:
        return functional.linear(x, layer.weight, layer.bias)
    result: torch.Tensor = (layer.weight @ x.reshape(rows, -1).T).T.contiguous().view(*x.shape[:-1], -1)
    return result if layer.bias is None else result + layer.bias


def _noise(scores: torch.Tensor, draw: Sequence[torch.Generator]) -> torch.Tensor:
    """Gumbel noise: the greatest of log p + noise is a draw from p. Rows with the same generator get the same."""
    noise = {of: -torch.empty_like(scores[0]).exponential_(generator=of).log() for of in dict.fromkeys(draw)}
    return torch.stack([noise[of] for of in draw])


def _narrowed(state: dict[str, Any], rows: torch.Tensor, of: int) -> dict[str, Any]:
    """The generation's state without those *of* its rows that are not among *rows*."""
    for kept in state.values():
        if hasattr(kept, "reorder_cache"):
            kept.reorder_cache(rows)
    return {
        name: kept[rows] if isinstance(kept, torch.Tensor) and kept.ndim and len(kept) == of else kept
        for name, kept in state.items()
    }


@dataclass
class Text:
    """A reply that grows. No half characters are told, and no space at its ends."""

    tokenizer: PreTrainedTokenizerBase
    tokens: list[int] = field(default_factory=list)
    told: str = ""

    def add(self, token: int) -> str:
        """Return what can be told now that *token* is there too."""
        self.tokens.append(token)
        return "" if self._whole().endswith(UNFINISHED) else self.rest()

    def rest(self) -> str:
        """Return all that was not told yet."""
        before, self.told = self.told, self._whole()
        return self.told[len(before) :]

    def _whole(self) -> str:
        decode: Any = self.tokenizer.decode
        text: str = decode(self.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.strip()
