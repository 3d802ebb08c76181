"""A run's adapter worked into its base model: computed in float32, rounded once, read again and compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import ModelError, needing_extra, telling_disk_full
from ..preferences.pairs import Messages
from ..run import Run
from .policy import load_to_merge, load_tokenizer, telling_refused_messages

with needing_extra("train"):
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROMPTS = 5
SAME = 1e-4
"""How far float32 logits may be off, as a share of the largest."""
TIMES = 4.0
"""How much further from float32 a merged model in 16 bits may be than base and adapter in those 16 bits are."""
SHARE = (0.5, 1.5)
"""How much of what the adapter does to the logits has to be there: none is 0, all of it 1, twice 2."""


@dataclass(frozen=True)
class Check:
    """How a merged model compares with base and adapter on a few prompts.

    Attributes:
        dtype: that of the base model, and so of the merged one.
        prompts: how many were compared.
        error: root mean square of the difference of logits, against base and adapter in float32.
        own_error: the same of base and adapter in *dtype*: what computing in it costs without merging.
        worst: the largest difference, as a share of the largest logit.
        share: how much of the adapter's effect is there, by projection on it; 1 where it has none.
        stops: the tokens that end a reply.
    """

    dtype: str
    prompts: int
    error: float
    own_error: float
    worst: float
    share: float
    stops: list[str]


def prompts_of(run: Run) -> list[Messages]:
    """The first few prompts of *run*, held-out ones before others."""
    return [pair.prompt for pair in (run.pairs("held_out") + run.pairs("train"))[:PROMPTS]]


@torch.inference_mode()
def logits_of(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Messages]
) -> list[torch.Tensor]:
    """Logits of shape (1, tokens, vocabulary), a prompt each, on the CPU.

    Raises:
        ModelError: the chat template refuses the prompts.
    """
    found = []
    for prompt in prompts:
        with telling_refused_messages():
            encoded: Any = tokenizer.apply_chat_template(
                [dict(message) for message in prompt], add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        found.append(cast(Any, model)(**encoded.to(model.device)).logits.cpu())
    return found


def merge(run: Run, target: Path) -> Check:
    """Work the run's adapter into its base model, save that with its tokenizer in *target*, and compare.

    W + scaling · B A is computed in float32, and rounded once to the dtype in which the base model was saved. What was
    saved is then loaded as anybody would load it. A base trained in 4 bits is merged, and compared, as it was saved.

    Memory: one copy of the model at a time, four bytes a weight while it is merged.

    Raises:
        ModelError: the base model cannot be loaded, or what was saved does not compute what base and adapter do.
        DiskFullError: there is no room.
    """
    tokenizer, prompts = load_tokenizer(run.adapter), prompts_of(run)
    base = load_to_merge(run.recipe.model)
    kept = {name: tensor.dtype for name, tensor in _tensors(base)}
    dtype = base.dtype
    model = PeftModel.from_pretrained(base, run.adapter).eval()
    own = _flat(model, tokenizer, prompts)
    model.float()
    after, before = _flat(model, tokenizer, prompts), _flat(model, tokenizer, prompts, adapter=False)
    merged = _unloaded(model)
    for name, tensor in _tensors(merged):
        tensor.data = tensor.data.to(kept[name])
    with telling_disk_full(target):
        merged.save_pretrained(target)
        tokenizer.save_pretrained(target)
    stops = _stops(tokenizer, merged)
    del base, model, merged
    found = _flat(load_to_merge(str(target)), tokenizer, prompts)
    check = Check(
        dtype=str(dtype).removeprefix("torch."),
        prompts=len(prompts),
        error=_rms(found - after),
        own_error=_rms(own - after),
        worst=float((found - after).abs().max() / after.abs().max()),
        share=_share(found - before, after - before),
        stops=stops,
    )
    require_same(check)
    return check


def require_same(check: Check) -> None:
    """See that the merged model computes what base and adapter do.

    In float32, the logits may differ by `SAME`. In 16 bits each result is rounded, with an adapter beside the base too:
    that is measured, and the merged model may be `TIMES` as far off. As a small adapter hides in that rounding, its
    effect on the logits d = after − before is looked for by itself: <merged − before, d> / <d, d> has to be near 1,
    and is 0 where the adapter is missing and about 2 where it was added twice. Rounding has no direction, and averages out.

    Raises:
        ModelError: it does not.
    """
    if not math.isfinite(check.error):
        raise ModelError("The merged model's logits are no finite numbers: the adapter or its base model is broken.")
    if not SHARE[0] <= check.share <= SHARE[1]:
        raise ModelError(
            f"The merged model does not compute what base and adapter do: {check.share:.0%} of the adapter's effect is "
            f"in its logits. If the adapter changes little, {check.dtype} may be too coarse. Use the adapter itself."
        )
    exact = check.dtype == "float32"
    if check.worst > SAME if exact else check.error > TIMES * check.own_error:
        told = (
            f"{check.worst:.1e} of the largest"
            if exact
            else f"{check.error / (check.own_error or 1):.1f} times rounding"
        )
        raise ModelError(
            f"The merged model does not compute what base and adapter do: its logits differ by {told}. "
            "Use the adapter as it is."
        )


def _tensors(model: PreTrainedModel) -> list[tuple[str, torch.Tensor]]:
    """Parameters and buffers by name, a tied one once."""
    return [*model.named_parameters(), *model.named_buffers()]


def _unloaded(model: PeftModel) -> PreTrainedModel:
    try:
        return cast(PreTrainedModel, cast(Any, model).merge_and_unload(safe_merge=True))
    except ValueError as error:
        raise ModelError(f"The adapter cannot be worked into its base model: {error}.") from error


def _flat(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Messages],
    *,
    adapter: bool = True,
) -> torch.Tensor:
    """All logits in one row, in double precision."""
    with nullcontext() if adapter else cast(PeftModel, model).disable_adapter():
        return torch.cat([logits.flatten().double() for logits in logits_of(model, tokenizer, prompts)])


def _rms(difference: torch.Tensor) -> float:
    return float(difference.square().mean().sqrt())


def _share(found: torch.Tensor, effect: torch.Tensor) -> float:
    """How much of *effect* is in *found*."""
    size = float(effect @ effect)
    return float(found @ effect) / size if size else 1.0


def _stops(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> list[str]:
    """The model's end tokens that its chat template writes after a reply; its first where that writes none."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    listed = ids if isinstance(ids, list) else [ids]
    names = [cast(str, tokenizer.convert_ids_to_tokens(one)) for one in listed if one is not None]
    ends = list(dict.fromkeys(name for name in [cast(Any, tokenizer).eos_token, *names] if name))
    exchange = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    with telling_refused_messages():
        text = str(tokenizer.apply_chat_template(exchange, tokenize=False))
    tail = text.rpartition("!")[2]
    return [end for end in ends if end in tail] or ends[:1]
