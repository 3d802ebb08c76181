"""A model's logits on a run's first few prompts, to check that another model computes the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from ..errors import needing_extra
from ..preferences.pairs import Messages
from ..runs.run import Run
from .policy import explaining_template_errors

with needing_extra("train"):
    import torch
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROMPTS = 5
LAST = 16
"""Tokens at the end of each prompt whose logits are kept: keeping all of them could fill the memory."""


def prompts_of(run: Run) -> list[Messages]:
    """The first few prompts of *run*, held-out ones before others."""
    pairs = run.splits()
    return [pair.prompt for pair in [*pairs["held_out"], *pairs["train"]][:PROMPTS]]


@torch.inference_mode()
def logits_of(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Messages]
) -> list[Tensor]:
    """For each prompt its logits, of shape (1, tokens, vocabulary), on the CPU.

    Raises:
        ModelError: the chat template rejects the prompts.
    """
    found = []
    for prompt in prompts:
        with explaining_template_errors():
            encoded: Any = tokenizer.apply_chat_template(
                [dict(message) for message in prompt], add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        found.append(cast(Any, model)(**encoded.to(model.device)).logits.cpu())
    return found


def last_logits(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Messages]
) -> Tensor:
    """The logits of each prompt's last `LAST` tokens, as one flat tensor in double precision."""
    return torch.cat([logits[:, -LAST:].flatten().double() for logits in logits_of(model, tokenizer, prompts)])
