"""The batches of a run, in their real order, and how many of their tokens go through the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..recipe import SHARED_PREFIX, Recipe
from .reference import TOKEN_PARTS, Tokens
from .rehearsal import preserving_trainer_state
from .shared_prefix.plan import packed_length

COUNTED_BATCHES = 1000
"""Tokens are counted in at most this many batches, evenly spread over the run; the rest are taken to be alike."""
CANDIDATES = 8
"""The number of batches examined to find the largest: those whose pairs have the most tokens when counted singly."""


@dataclass(frozen=True)
class Batches:
    """Which pairs form a batch, by their index in the trainer's dataset, and their numbers of tokens.

    Tokens are those that go through the model: packed by the shared prefix, padded by plain TRL.
    """

    largest: list[int]
    typical: list[list[int]]
    """The two batches closest to the mean size; one if there is only one."""
    shortest: int
    """The pair with the fewest tokens."""
    pair_tokens: list[int]
    """The tokens of each pair by itself."""
    count: int
    steps: int
    most_tokens: int
    tokens: int
    """The tokens of all batches."""


def batches_of(trainer: Any, recipe: Recipe) -> Batches:
    """Return the batches of the whole run in advance; *trainer* is left unchanged."""
    order, steps = _order(trainer, recipe)
    alone = [count_tokens([pair], recipe) for pair in trainer.train_dataset]

    def tokens_of(batch: Sequence[int]) -> int:
        return count_tokens(pairs_at(trainer.train_dataset, batch), recipe)

    roughly = sorted(order, key=lambda batch: _rough(batch, alone, recipe))
    most, largest = max((tokens_of(batch), batch) for batch in roughly[-CANDIDATES:])
    every = math.ceil(len(order) / COUNTED_BATCHES)
    counted = [(tokens_of(batch), batch) for batch in order[::every]]
    mean = sum(tokens for tokens, _ in counted) / len(counted)
    typical = sorted(counted, key=lambda both: abs(both[0] - mean))[:2]
    return Batches(
        largest=largest,
        typical=[batch for _, batch in typical],
        shortest=alone.index(min(alone)),
        pair_tokens=alone,
        count=len(order),
        steps=steps,
        most_tokens=most,
        tokens=round(mean * len(order)),
    )


def _rough(batch: Sequence[int], alone: Sequence[int], recipe: Recipe) -> int:
    sizes = [alone[pair] for pair in batch]
    return sum(sizes) if recipe.engine == SHARED_PREFIX else len(sizes) * max(sizes)


def _order(trainer: Any, recipe: Recipe) -> tuple[list[list[int]], int]:
    """The pairs of each batch, as the trainer's own sampler will draw them, and the number of steps."""
    order: list[list[int]] = []
    with preserving_trainer_state(trainer):
        known = len(trainer.accelerator._dataloaders)
        loader = trainer.get_train_dataloader()
        del trainer.accelerator._dataloaders[known:]
        an_epoch = math.ceil(len(loader) / recipe.accumulation)
        steps = math.ceil(recipe.epochs * an_epoch)
        for epoch in range(math.ceil(steps / an_epoch)):
            loader.set_epoch(epoch)
            order += [list(batch) for batch in loader.batch_sampler]
    whole, rest = divmod(steps, an_epoch)
    return order[: whole * len(loader) + rest * recipe.accumulation], steps


def pairs_at(dataset: Any, places: Sequence[int]) -> list[Tokens]:
    """The tokenised pairs at these indices."""
    columns = dataset[list(places)]
    return [
        dict(zip(TOKEN_PARTS, parts, strict=True))
        for parts in zip(*(columns[name] for name in TOKEN_PARTS), strict=True)
    ]


def rows_of(pair: Tokens) -> list[list[int]]:
    """A pair's two rows: the prompt with the chosen reply, and with the rejected one."""
    return [[*pair["prompt_ids"], *pair[reply]] for reply in ("chosen_ids", "rejected_ids")]


def count_tokens(pairs: Sequence[Tokens], recipe: Recipe) -> int:
    """How many tokens of a batch of these pairs go through the model."""
    rows = [row[: recipe.max_length] for pair in pairs for row in rows_of(pair)]
    return packed_length(rows) if recipe.engine == SHARED_PREFIX else len(rows) * max(map(len, rows))


def count_scored(pairs: Sequence[Tokens], recipe: Recipe) -> int:
    """How many tokens of these pairs the head has to score."""
    return sum(
        max(0, min(len(row), recipe.max_length) - len(pair["prompt_ids"])) for pair in pairs for row in rows_of(pair)
    )
