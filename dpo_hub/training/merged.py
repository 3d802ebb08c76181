"""Merges a run's adapter into its base model: computed in float32, rounded once, reloaded and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import ModelError, explaining_disk_full, needing_extra
from ..runs.run import Run
from .logits import last_logits, prompts_of
from .policy import end_tokens, load_to_merge, load_tokenizer

with needing_extra("train"):
    import torch
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SAME = 1e-4
"""The largest allowed difference of float32 logits, as a share of the largest logit."""
UNSEEN = 1e-6
"""An effect on the logits smaller than this share of their norm is below float32 precision."""


@dataclass(frozen=True)
class Check:
    """How a saved merged model compares in float32 with the base model plus adapter on a few prompts.

    Attributes:
        dtype: that of the base model, and so of the merged one.
        prompts: how many were compared.
        worst: the largest difference, as a share of the largest logit.
        share: the share of the adapter's effect on the logits that is kept: 1 if rounding loses none of it.
        stops: the tokens that end a reply.
    """

    dtype: str
    prompts: int
    worst: float
    share: float
    stops: list[str]


def merge(run: Run, target: Path) -> Check:
    """Merge the run's adapter into its base model, save it with its tokenizer in *target*, and compare.

    W + scaling · B A is computed in float32, and must give the logits of the base model plus adapter. It is then
    rounded once, to the dtypes of the base model as it was saved; the model reloaded from *target* must give the logits
    of the rounded one. Loss from rounding is not an error; `Check.share` reports it.

    Memory: one copy of the model at a time, four bytes per weight.

    Raises:
        ModelError: the base model cannot be loaded, or the merged or saved model computes something else.
        DiskFullError: the disk is full.
    """
    tokenizer, prompts = load_tokenizer(run.adapter), prompts_of(run)
    base = load_to_merge(run.recipe.model)
    dtype, dtypes = base.dtype, {name: tensor.dtype for name, tensor in _tensors(base)}
    model: Any = PeftModel.from_pretrained(base, run.adapter).eval()
    after = last_logits(model.float(), tokenizer, prompts)
    with model.disable_adapter():
        before = last_logits(model, tokenizer, prompts)
    merged: Any = _unloaded(model)
    require_same(last_logits(merged, tokenizer, prompts), after, before)
    _save(merged, dtypes, tokenizer, target)
    rounded, stops = last_logits(merged.float(), tokenizer, prompts), end_tokens(tokenizer, merged)
    del base, model, merged
    read: Any = load_to_merge(str(target))
    found = last_logits(read.float(), tokenizer, prompts)
    require_same(found, rounded, before)
    name, worst, share = str(dtype).removeprefix("torch."), _worst(found, after), _share(found, after, before)
    return Check(name, len(prompts), worst, share, stops)


def require_same(found: Tensor, expected: Tensor, before: Tensor) -> None:
    """Check that the logits *found* match *expected*, and that the adapter's effect on *before* was applied once.

    Raises:
        ModelError: they do not match.
    """
    worst, share = _worst(found, expected), _share(found, expected, before)
    if not (worst <= SAME and abs(share - 1) < 0.5):  # NaN fails too
        raise ModelError(
            f"The merged model does not compute what base and adapter do: its logits differ by {worst:.1e} of the "
            f"largest, and {share:.0%} of the adapter's effect is there. Use base model and adapter as they are."
        )


def _worst(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def _share(found: Tensor, after: Tensor, before: Tensor) -> float:
    """<found − before, d> / <d, d> with d = after − before: 0 without the adapter, 2 with it twice."""
    effect = after - before
    return float((found - before) @ effect / (effect @ effect)) if effect.norm() > UNSEEN * after.norm() else 1.0


def _tensors(model: PreTrainedModel) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name; tied ones appear once."""
    return [*model.named_parameters(), *model.named_buffers()]


def _unloaded(model: PeftModel) -> PreTrainedModel:
    try:
        return cast(PreTrainedModel, cast(Any, model).merge_and_unload(safe_merge=True))
    except ValueError as error:
        raise ModelError(f"The adapter cannot be worked into its base model: {error}.") from error


def _save(
    model: PreTrainedModel, dtypes: Mapping[str, torch.dtype], tokenizer: PreTrainedTokenizerBase, target: Path
) -> None:
    """Round *model* to *dtypes*, and save it with its tokenizer."""
    for name, tensor in _tensors(model):
        tensor.data = tensor.data.to(dtypes[name])
    with explaining_disk_full(target):
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
