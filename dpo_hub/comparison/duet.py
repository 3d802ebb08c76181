"""Replies of the base model and one or more adapters on it to the same prompts, sampled together in one batch.

All sides sample with the same random numbers, so that they differ by their weights only. Knows nothing of callers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ..errors import RunError, needing_extra
from ..preferences.pairs import Messages
from ..recipe import Recipe
from ..runs.run import Run
from ..training.decoding import BASE, sample
from ..training.memory import LOADING, explaining_out_of_memory
from ..training.policy import REFERENCE_ADAPTER, explaining_template_errors, load_base
from .text import Detokenizer

with needing_extra("train"):
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


BATCH = 64
"""The most replies sampled in one batch."""
KEPT = 4
"""The most adapters kept in memory, unless one duet needs more."""


@dataclass(frozen=True)
class Replies:
    """The replies of the reference (before) and the policy (after) to the same prompt."""

    before: str
    after: str


@dataclass(frozen=True)
class ReplyIds:
    """A prompt and both replies to it, as token ids; a reply that was not cut off includes its end token."""

    prompt: list[int]
    before: list[int]
    after: list[int]


@dataclass(frozen=True)
class Duet:
    """A base model with adapters, ready to answer. Its `sides` are the reference, then each policy in order."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    sides: tuple[str, ...] = (BASE, "default")
    """The names of their adapters; the first is the base model, unless the run started from an adapter."""

    @classmethod
    def of(cls, policy: PeftModel, tokenizer: PreTrainedTokenizerBase) -> Duet:
        """The duet of a policy that has just been trained, with its reference."""
        return cls(
            policy, tokenizer, (REFERENCE_ADAPTER if REFERENCE_ADAPTER in policy.peft_config else BASE, "default")
        )

    @classmethod
    def open(cls, *runs: Run) -> Duet:
        """Load the adapters of finished runs and the base model that they share; raises the errors of `Models.duet`."""
        return Models().duet(*runs)

    def replies(
        self, prompts: Sequence[Messages], *, temperature: float = 0.7, seed: int = 0, max_new_tokens: int = 256
    ) -> list[Replies]:
        """Answer every prompt with the reference and the first policy; *temperature* 0 takes the likeliest token.

        The reply to a prompt depends on its position in *prompts*, but not on the other prompts.
        """
        sampled = self.sample_ids(prompts, temperature=temperature, seed=seed, max_new_tokens=max_new_tokens)
        return [self.decode(both) for both in sampled]

    def decode(self, both: ReplyIds) -> Replies:
        """The replies as text."""
        return Replies(self._text(both.before), self._text(both.after))

    def sample_ids(
        self, prompts: Sequence[Messages], *, temperature: float | None, seed: int = 0, max_new_tokens: int = 256
    ) -> list[ReplyIds]:
        """The same as `replies`, but as token ids; *temperature* None ignores the generation config when sampling."""
        sampled: list[ReplyIds] = []
        for start in range(0, len(prompts), BATCH // 2):
            batch = prompts[start : start + BATCH // 2]
            before, after, *_ = self.sides
            adapter_seeds = [(side, seed + start + place) for side in (before, after) for place in range(len(batch))]
            encoded = self._encoded([*batch, *batch])
            rows: list[list[int]] = [[] for _ in adapter_seeds]
            for step in self._sample(encoded, adapter_seeds, temperature, max_new_tokens):
                for row, token in step.items():
                    rows[row].append(token)
            padded = zip(encoded["input_ids"].tolist(), encoded["attention_mask"].tolist(), strict=True)
            ids = [[token for token, real in zip(*row, strict=True) if real] for row in padded]
            sampled += map(ReplyIds, ids[: len(batch)], rows[: len(batch)], rows[len(batch) :])
        return sampled

    def _text(self, tokens: Sequence[int]) -> str:
        text = Detokenizer(self.tokenizer, list(tokens))
        return text.flush()

    def stream(
        self, chats: Sequence[Messages], *, temperature: float = 0.7, seed: int = 0, max_new_tokens: int = 256
    ) -> Iterator[list[str]]:
        """Answer on all sides at once, one chat per side; yield the new text of each side whenever there is any.

        A side's texts joined are its reply. Closing the iterator stops the sampling.

        Raises:
            ModelError: the chat template rejects the messages, or the device's memory is full.
        """
        texts, adapter_seeds = [Detokenizer(self.tokenizer) for _ in chats], [(side, seed) for side in self.sides]
        for step in self._sample(self._encoded(chats), adapter_seeds, temperature, max_new_tokens):
            new = [text.add(step[row]) if row in step else "" for row, text in enumerate(texts)]
            if any(new):
                yield new
        if any(rest := [text.flush() for text in texts]):
            yield rest

    def _encoded(self, chats: Sequence[Messages]) -> Any:
        """The chats as token ids on the device, padded on the left."""
        with explaining_template_errors():
            encoded: Any = self.tokenizer.apply_chat_template(
                [[dict(message) for message in chat] for chat in chats],
                add_generation_prompt=True,
                padding=True,
                tokenizer_kwargs={"padding_side": "left"},
                return_tensors="pt",
                return_dict=True,
            )
        return encoded.to(self.model.device)

    def _sample(
        self, encoded: Any, adapter_seeds: Sequence[tuple[str, int]], temperature: float | None, max_new_tokens: int
    ) -> Iterator[dict[int, int]]:
        with explaining_out_of_memory("Ask for shorter replies or use fewer prompts."):
            yield from sample(
                self.model, encoded, adapter_seeds, temperature=temperature, max_new_tokens=max_new_tokens
            )


class Models:
    """Holds one base model at a time, with the adapters of the most recently used runs."""

    def __init__(self) -> None:
        self._base: tuple[str, bool] | None = None
        self._model: PeftModel | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._names: dict[Path, str] = {}
        self._new_names = (f"run{number}" for number in count())

    def duet(self, *runs: Run) -> Duet:
        """Return the duet of finished *runs*, loading what is missing; earlier duets may lose their adapters.

        Its reference is the first run's.

        Raises:
            RunError: a run has not finished, or they have different base models.
            ModelError: the base model cannot be loaded.
        """
        base = _base_of(runs)
        if base != self._base:
            self._base = self._model = self._tokenizer = None  # free the old model before loading the new one
            self._names.clear()
        reference, policies = runs[0].reference, [run.adapter for run in runs]
        wanted = [reference, *policies] if reference else policies
        for adapter in wanted:
            self._names[adapter] = self._names.pop(adapter, "") or self._load(adapter, base)
        self._base = base
        assert self._model
        assert self._tokenizer
        self._model.set_adapter(self._names[policies[-1]])
        for adapter in list(self._names)[: -max(KEPT, len(wanted))]:
            self._model.delete_adapter(self._names.pop(adapter))
        before = self._names[reference] if reference else BASE
        return Duet(self._model, self._tokenizer, (before, *(self._names[adapter] for adapter in policies)))

    def _load(self, adapter: Path, base: tuple[str, bool]) -> str:
        name = next(self._new_names)
        with explaining_out_of_memory(LOADING):
            if self._model is None:
                plain, self._tokenizer = load_base(base[0], load_in_4bit=base[1])
                self._model = PeftModel.from_pretrained(plain, adapter, adapter_name=name)
            else:
                self._model.load_adapter(adapter, adapter_name=name)
        return name


def _base_of(runs: Sequence[Run]) -> tuple[str, bool]:
    """The base model of all *runs*, and whether it is loaded in 4 bits."""
    first, *others = [(run, run.require_finished().recipe) for run in runs]
    base = first[1].model, first[1].load_in_4bit
    for run, recipe in others:
        if (recipe.model, recipe.load_in_4bit) != base:
            raise RunError(
                f"{first[0].id} and {run.id} cannot be compared at once: the base model of one is "
                f"{_name_of_base(first[1])}, of the other {_name_of_base(recipe)}."
            )
    return base


def _name_of_base(recipe: Recipe) -> str:
    return recipe.model + (" in 4 bits" if recipe.load_in_4bit else "")
