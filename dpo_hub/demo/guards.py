"""Measures what must not get worse when a use is trained: fluency, repetition, and the model's other knowledge.

A guard is measured before and after, with a model in memory; nothing here decides what is good enough.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..comparison.duet import Duet, ReplyIds
from ..preferences.doctor.model_checks import common_prefix
from ..training.lora import fused_lora
from ..training.matmul import default_matmul
from ..training.policy import as_reference
from ..training.probe import repeated
from .assistant import GENERAL

Reply = tuple[list[int], list[int]]
"""A prompt and a reply to it, as token ids."""
BATCH = 24
"""Replies in a batch."""


@dataclass(frozen=True)
class Guards:
    """Figures as (before, after), means over prompts or tokens."""

    surprise: tuple[float, float]
    """Mean negative log-likelihood of a token under the base model, in nats: lower is more fluent. Both replies to a
    prompt are cut to the shorter one's length, since later tokens are easier to predict; end tokens do not count."""
    repeats: tuple[float, float]
    """The share of a reply's token 4-grams that occurred earlier in it."""
    general: tuple[float, float]
    """Mean log-probability of a token in the reference replies to general prompts, in nats."""
    general_kl: float
    """KL(policy ‖ base) in nats per token on those replies, over the whole vocabulary."""

    @property
    def kept(self) -> float:
        """How much of `general` is kept: 0.97 if those replies became about 3 % more surprising."""
        return self.general[0] / self.general[1]


def guard(duet: Duet, written: Sequence[ReplyIds]) -> Guards:
    """Measure the guards of a policy on the replies that it and its base model have *written*."""
    before, after, general_kl = _log_probs_and_kl(duet, _questions(duet))
    alike = [_equally_long(duet, both) for both in written]
    return Guards(
        surprise=(
            _surprise(duet, [(prompt, then) for prompt, then, _ in alike]),
            _surprise(duet, [(prompt, now) for prompt, _, now in alike]),
        ),
        repeats=(fmean(repeated(both.before) for both in written), fmean(repeated(both.after) for both in written)),
        general=(before, after),
        general_kl=general_kl,
    )


def distance(duet: Duet, written: Sequence[ReplyIds]) -> float:
    """KL(policy ‖ base) in nats per token on the policy's own replies, over the whole vocabulary."""
    return _log_probs_and_kl(duet, [(both.prompt, both.after) for both in written])[2]


def _equally_long(duet: Duet, both: ReplyIds) -> tuple[list[int], list[int], list[int]]:
    """The prompt and both replies, cut to the length of the shorter one and without special tokens."""
    ends = set(duet.tokenizer.all_special_ids)
    then, now = ([token for token in reply if token not in ends] for reply in (both.before, both.after))
    least = min(len(then), len(now))
    return both.prompt, then[:least], now[:least]


def _surprise(duet: Duet, replies: Sequence[Reply]) -> float:
    """The base model's mean negative log-likelihood of a token of *replies*."""
    likelihoods = [
        _own(logits.log_softmax(-1), reply)
        for batch in _batches(replies)
        for logits, reply in _logits(duet, batch, side="before")
    ]
    return -sum(likelihoods) / max(1, sum(len(reply) for _, reply in replies))


def _log_probs_and_kl(duet: Duet, replies: Sequence[Reply]) -> tuple[float, float, float]:
    """The mean log-probability of a token of *replies* before and after, and KL(policy ‖ base) per token."""
    before, after, apart, tokens = 0.0, 0.0, 0.0, 0
    for batch in _batches(replies):
        sides = (_logits(duet, batch, side=side) for side in ("before", "after"))
        for (base, reply), (policy, _) in zip(*sides, strict=True):
            old, new = base.log_softmax(-1), policy.log_softmax(-1)
            before, after, tokens = before + _own(old, reply), after + _own(new, reply), tokens + len(reply)
            apart += functional.kl_div(old, new, log_target=True, reduction="sum").item()
    return before / tokens, after / tokens, apart / tokens


def _own(log_probs: Tensor, reply: Sequence[int]) -> float:
    """The log-probability of *reply*, given those of every token at each of its positions, [tokens, vocabulary]."""
    return log_probs[range(len(reply)), list(reply)].sum().item()


def _questions(duet: Duet) -> list[Reply]:
    """Each general prompt and its reference reply; the reply ends as the chat template ends it."""
    template: Any = duet.tokenizer.apply_chat_template
    with GENERAL.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    found = []
    for row in rows:
        asked = [{"role": "user", "content": row["prompt"]}]
        prompt = template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
        whole = template([*asked, {"role": "assistant", "content": row["reply"]}], return_dict=True)["input_ids"]
        found.append((prompt, whole[len(prompt) :]))
    return found


def _batches(replies: Sequence[Reply]) -> Iterator[list[Reply]]:
    ordered = sorted((both for both in replies if both[1]), key=lambda both: len(both[0]) + len(both[1]))
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


@torch.no_grad()
def _logits(duet: Duet, batch: Sequence[Reply], *, side: str) -> list[tuple[Tensor, Sequence[int]]]:
    """For each of *batch*, the logits that predict the tokens of its reply, [tokens, vocabulary], and the reply.

    The prefix that all rows share, such as the system message, is computed once.
    """
    model, pad, where = duet.model.eval(), int(duet.tokenizer.pad_token_id), duet.model.device
    shared = min(common_prefix(batch[0][0], prompt) for prompt, _ in batch)
    shared = min(shared, min(len(prompt) for prompt, _ in batch) - 1)  # leave at least one prompt token in each row
    rows, longest = [prompt[shared:] + reply for prompt, reply in batch], max(len(reply) for _, reply in batch)
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=where)
    mask = torch.tensor([[1] * shared + [0] * (width - len(row)) + [1] * len(row) for row in rows], device=where)
    with as_reference(duet.model) if side == "before" else fused_lora(duet.model), default_matmul():
        cache = model(input_ids=torch.tensor([batch[0][0][:shared]], device=where), use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(rows))
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=places,
            past_key_values=cache,
            logits_to_keep=longest + 1,
        ).logits[:, :-1]
    return [(part[longest - len(reply) :].float(), reply) for part, (_, reply) in zip(logits, batch, strict=True)]
