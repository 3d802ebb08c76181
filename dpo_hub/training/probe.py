"""Answers a few held-out prompts during training: how far the policy has moved from the reference, and how it writes.

Training then continues as if this had not happened. Knows nothing of TRL's classes or of runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from ..errors import needing_extra
from ..preferences import text_of
from .decoding import BASE, sample
from .policy import REFERENCE_ADAPTER, as_reference
from .shared_prefix.plan import IGNORE_INDEX

with needing_extra("train"):
    import torch
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from .randomness import preserving_random_state

PROMPTS = 8
"""Few, to keep a probe cheap; enough for a useful standard error of their mean length."""
NEW_TOKENS = 48
"""The most tokens of a reply: forty words of English show its style, and each token takes time."""
ROOM = 1.5
"""The limit otherwise, as a multiple of the longest chosen reply: enough to see replies grow past it."""
NGRAM = 4
"""The number of tokens that count as a repeat when they recur in a reply; shorter ones recur in good prose too."""


def points(steps: int, count: int) -> frozenset[int]:
    """Up to *count* evenly spaced steps of a run of *steps*, ending with its last."""
    return frozenset(max(1, round(steps * part / count)) for part in range(1, count + 1))


def select_pairs(pairs: Iterable[Mapping[str, Any]], max_length: int) -> list[Mapping[str, Any]]:
    """The first `PROMPTS` *pairs* whose prompts fill at most half of *max_length*, else the pair with the shortest."""
    every = list(pairs)
    roomy = [pair for pair in every if 2 * len(pair["prompt_ids"]) <= max_length]
    return roomy[:PROMPTS] or [min(every, key=lambda pair: len(pair["prompt_ids"]))]


@contextmanager
def preserving_model_state(model: torch.nn.Module) -> Iterator[None]:
    """Restore all random states, and whether *model* is in training mode, on leaving the context."""
    training = model.training
    try:
        with preserving_random_state():
            yield
    finally:
        model.train(training)


@dataclass(frozen=True)
class Probe:
    """Held-out prompts and the policy that answers them within *max_length*; *pairs* have tokens and messages."""

    policy: PeftModel
    tokenizer: PreTrainedTokenizerBase
    pairs: Sequence[Mapping[str, Any]]
    max_length: int
    seed: int = 0
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def measure(self) -> dict[str, Any]:
        """Answer the prompts and measure the answers. Draws random numbers; call it within `preserving_model_state`.

        Returns:
            `kl`: KL(π‖π_ref) in nats per token, estimated as the mean of log π − log π_ref over the tokens π wrote.
            `repeated`, `reference_repeated`: the share of repeated 4-grams in the replies of policy and reference.
            `reply_tokens`, `reference_tokens`, `chosen_tokens`: lengths, one per prompt, capped at the limit.
            `replies`: prompt and reply as texts.
        """
        replies, of_reference = self._answer()
        policy = self._log_probs(replies)
        with as_reference(self.policy):
            reference = self._log_probs(replies)
        written = sum(map(len, replies))
        return {
            "kl": (policy - reference).sum().item() / max(written, 1),
            "repeated": _mean_repeated(replies),
            "reference_repeated": _mean_repeated(of_reference),
            "reply_tokens": [len(reply) for reply in replies],
            "reference_tokens": [len(reply) for reply in of_reference],
            "chosen_tokens": [min(len(pair["chosen_ids"]), self._limit) for pair in self.pairs],
            "replies": [
                {"prompt": text_of(pair["prompt"]), "reply": self._text(reply)}
                for pair, reply in zip(self.pairs, replies, strict=True)
            ],
        }

    @cached_property
    def _limit(self) -> int:
        longest_prompt, longest_chosen = (
            max(len(pair[part]) for pair in self.pairs) for part in ("prompt_ids", "chosen_ids")
        )
        return max(1, min(NEW_TOKENS, round(ROOM * longest_chosen), self.max_length - longest_prompt))

    def _text(self, reply: list[int]) -> str:
        return str(self.tokenizer.decode(reply, skip_special_tokens=True)).strip()

    @property
    def _pad(self) -> int:
        return int(self.tokenizer.pad_token_id)

    def _answer(self) -> tuple[list[list[int]], list[list[int]]]:
        """Sample replies of policy and reference at temperature 1, with the same random numbers for both, each time.

        They are sampled in one batch: reading the weights from memory dominates, so twice the rows cost little more.
        """
        before = REFERENCE_ADAPTER if REFERENCE_ADAPTER in self.policy.peft_config else BASE
        voices = [(adapter, self.seed + row) for adapter in ("default", before) for row in range(len(self.pairs))]
        prompts = [pair["prompt_ids"] for pair in self.pairs] * 2
        width = max(map(len, prompts))
        ids = self._tensor([self._pad] * (width - len(prompt)) + list(prompt) for prompt in prompts)
        mask = self._tensor([0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts)
        replies: list[list[int]] = [[] for _ in prompts]
        with self.autocast():
            for step in sample(
                self.policy,
                {"input_ids": ids, "attention_mask": mask},
                voices,
                temperature=None,
                max_new_tokens=self._limit,
            ):
                for row, token in step.items():
                    replies[row].append(token)
        return replies[: len(self.pairs)], replies[len(self.pairs) :]

    @torch.no_grad()
    def _log_probs(self, replies: list[list[int]]) -> torch.Tensor:
        """Log π of each token of *replies* under the model as it is: [rows, tokens − 1], zero outside the replies."""
        rows = [list(pair["prompt_ids"]) + reply for pair, reply in zip(self.pairs, replies, strict=True)]
        width = max(map(len, rows))
        labels = (
            [IGNORE_INDEX] * len(pair["prompt_ids"]) + reply for pair, reply in zip(self.pairs, replies, strict=True)
        )
        with self.autocast():
            scored: Any = self.policy(
                input_ids=self._tensor(row + [self._pad] * (width - len(row)) for row in rows),
                attention_mask=self._tensor([1] * len(row) + [0] * (width - len(row)) for row in rows),
                labels=self._tensor(row + [IGNORE_INDEX] * (width - len(row)) for row in labels),
                use_cache=False,
                fused_lm_head=True,
            )
        log_probs: torch.Tensor = scored.log_probs
        return log_probs.double()

    def _tensor(self, rows: Iterable[list[int]]) -> torch.Tensor:
        return torch.tensor(list(rows), device=self.policy.device)


def repeated(reply: Sequence[int]) -> float:
    """The share of *reply*'s n-grams that occurred earlier in it."""
    grams = [tuple(reply[at : at + NGRAM]) for at in range(len(reply) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _mean_repeated(replies: Sequence[Sequence[int]]) -> float:
    return fmean(map(repeated, replies))
