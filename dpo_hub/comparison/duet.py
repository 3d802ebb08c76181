"""Both replies, before and after, from one model in memory: the adapter is switched off and on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError, needing_extra
from ..preferences.pairs import Messages
from ..run import Run
from ..training.policy import load_base, telling_refused_messages

with needing_extra("train"):
    import torch
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

BATCH = 64


@dataclass(frozen=True)
class Replies:
    """What the reference (before) and the policy (after) answer to the same prompt."""

    before: str
    after: str


@dataclass(frozen=True)
class Duet:
    """A base model with an adapter, ready to answer."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def open(cls, run: Run) -> Duet:
        """Load the base model and adapter of a finished run.

        Raises:
            RunError: the run has not finished.
            ModelError: its base model cannot be loaded.
        """
        recipe = run.require_finished().recipe
        base, tokenizer = load_base(recipe.model, load_in_4bit=recipe.load_in_4bit)
        return cls(PeftModel.from_pretrained(base, run.adapter), tokenizer)

    def replies(
        self, prompts: Sequence[Messages], *, temperature: float = 0.7, seed: int = 0, max_new_tokens: int = 256
    ) -> list[Replies]:
        """Answer every prompt twice with the same seed on both sides; *temperature* 0 takes the likeliest token."""
        try:
            with telling_refused_messages():
                with self.model.disable_adapter():
                    before = list(self._generate(prompts, temperature, seed, max_new_tokens))
                after = list(self._generate(prompts, temperature, seed, max_new_tokens))
        except torch.OutOfMemoryError as error:
            raise ModelError("The device's memory is full. Ask for shorter replies, or of fewer prompts.") from error
        return [Replies(*both) for both in zip(before, after, strict=True)]

    @torch.inference_mode()
    def _generate(
        self, prompts: Sequence[Messages], temperature: float, seed: int, max_new_tokens: int
    ) -> Iterator[str]:
        self.model.eval()
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        for start in range(0, len(prompts), BATCH):
            torch.manual_seed(seed + start)  # anew for each batch: how long one side's replies are changes nothing
            encoded: Any = self.tokenizer.apply_chat_template(
                [[dict(message) for message in prompt] for prompt in prompts[start : start + BATCH]],
                add_generation_prompt=True,
                padding=True,
                tokenizer_kwargs={"padding_side": "left"},
                return_tensors="pt",
                return_dict=True,
            )
            generated = self.model.generate(  # type: ignore[no-untyped-call]
                **encoded.to(self.model.device),
                **(sampling if temperature > 0 else {"do_sample": False}),
                max_new_tokens=max_new_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
            )
            new = generated[:, encoded["input_ids"].shape[1] :]
            yield from (text.strip() for text in self.tokenizer.batch_decode(new, skip_special_tokens=True))
