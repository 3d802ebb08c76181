"""A judge that scores each reply with a reward model, which gets prompt and reply through its chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError, needing_extra
from ..preferences.pairs import Messages
from ..training.memory import LOADING, explaining_out_of_memory
from ..training.policy import device, dtype, explaining_load_errors, explaining_template_errors, load_tokenizer
from .votes import Ballot

with needing_extra("train"):
    import torch
    from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase


@dataclass(frozen=True)
class RewardModel:
    """A text classifier with one output, and its tokenizer."""

    name: str
    model: Any
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def open(cls, name: str) -> RewardModel:
        """Load the model from a folder or a Hub id; its code, if any, is never run.

        Raises:
            ModelError: it does not exist, cannot be reached, or does not give a single number.
        """
        with explaining_load_errors(name), explaining_out_of_memory(LOADING):
            tokenizer = load_tokenizer(name)
            load: Any = AutoModelForSequenceClassification.from_pretrained
            model, told = load(name, trust_remote_code=False, output_loading_info=True, dtype=dtype())
            model.to(device()).eval()
        if model.config.num_labels != 1 or told["missing_keys"]:
            raise ModelError(f"{name} is no reward model: it does not give one number to a reply. Name another.")
        model.config.pad_token_id = tokenizer.pad_token_id
        return cls(name, model, tokenizer)

    def compare(self, ballot: Ballot) -> Sequence[str]:
        """Return which reply has the higher reward; the order in which they are shown makes no difference.

        Raises:
            ModelError: the chat template rejects the prompt, or the device's memory is full.
        """
        before, after = self.rewards(ballot.prompt, [ballot.before, ballot.after])
        return ["tie" if before == after else "after" if after > before else "before"]

    @torch.inference_mode()
    def rewards(self, prompt: Messages, replies: Sequence[str]) -> list[float]:
        """The reward of each of *replies* to *prompt*, in the model's own unit, computed in one batch."""
        chats = [[*map(dict, prompt), {"role": "assistant", "content": reply}] for reply in replies]
        template: Any = self.tokenizer.apply_chat_template
        with explaining_template_errors():
            encoded = template(
                chats,
                padding=True,
                tokenizer_kwargs={"padding_side": "right"},
                return_tensors="pt",
                return_dict=True,
            )
        with explaining_out_of_memory("Take a smaller reward model."):
            rewards: list[float] = self.model(**encoded.to(self.model.device)).logits[:, 0].double().tolist()
        return rewards
