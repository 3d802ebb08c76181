"""Lays out the tokens of a padded batch without padding and with shared prefixes only once. Integers only."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from ...preferences.doctor.model_checks import common_prefix

IGNORE_INDEX = -100
"""The label of tokens that are not to be predicted."""


@dataclass(frozen=True)
class Plan:
    """Where the tokens of a batch are in one packed row of T tokens, and which places are scored.

    Rows are sorted by their tokens, so that each follows the one with which it shares the longest prefix; that prefix
    is stored once. The tensors are on the device of the batch.
    """

    source: Tensor
    """[T]: the place in the flattened batch that each packed token comes from."""
    positions: Tensor
    """[T]: its position in its own row."""
    lengths: tuple[tuple[int, int], ...]
    """(queries, keys) for each row with tokens of its own: the numbers of those, and of all its tokens."""
    keys: Tensor
    """[K]: the places of the keys of those rows, row after row."""
    places: Tensor
    """[R]: the place of each token of the batch, row by row; shared tokens appear several times."""
    scored: Tensor
    """[N]: the places with something to predict, each once for each distinct target."""
    targets: Tensor
    """[N]: the tokens to be predicted there."""
    spread: Tensor
    """[M]: for each scored token of the batch, row by row, which of the N it is."""
    masks: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)
    """Attention masks by (queries, keys, window), made when first needed and shared by the layers."""

    @functools.cached_property
    def offsets(self) -> tuple[Tensor, Tensor]:
        """Where each row's queries and keys begin, and where the last ones end: two tensors [rows + 1], int32."""
        ends = torch.tensor([(0, 0), *self.lengths]).cumsum(0).int().T.contiguous()
        queries, keys = ends.to(self.keys.device, non_blocking=True)
        return queries, keys


def plan_batch(input_ids: Tensor, attention_mask: Tensor, labels: Tensor, *, keep_last: bool = False) -> Plan:
    """Lay out a batch with padding on the right.

    Args:
        input_ids: [rows, L].
        attention_mask: [rows, L], 1 for tokens and 0 for padding.
        labels: [rows, L], equal to `input_ids` where the token is to be predicted, else -100.
        keep_last: whether each row's last token, which predicts nothing, also goes through the model.
    """
    rows, width = input_ids.shape
    ids, wanted = input_ids.cpu(), labels.cpu()[:, 1:] != IGNORE_INDEX
    used = [max(size - (not keep_last), 1) for size in attention_mask.sum(1).tolist()]
    texts = [text[:size] for text, size in zip(ids.tolist(), used, strict=True)]

    place = torch.zeros(rows, width, dtype=torch.long)
    source, positions, keys, lengths = [], [], [], []
    end, before = 0, 0
    for row in sorted(range(rows), key=texts.__getitem__):
        shared = common_prefix(texts[before], texts[row]) if end else 0
        own = torch.arange(shared, used[row])
        place[row, :shared] = place[before, :shared]
        place[row, shared : used[row]] = own + (end - shared)
        if len(own):
            source.append(own + row * width)
            positions.append(own)
            keys.append(place[row, : used[row]])
            lengths.append((len(own), used[row]))
        end, before = end + len(own), row

    at, target = place[:, :-1][wanted], ids[:, 1:][wanted]
    stride = int(target.max()) + 1 if len(target) else 1
    distinct, spread = torch.unique(at * stride + target, return_inverse=True)
    tensors = {
        "source": torch.cat(source),
        "positions": torch.cat(positions),
        "keys": torch.cat(keys),
        "places": torch.cat([place[row, : used[row]] for row in range(rows)]),
        "scored": distinct // stride,
        "targets": distinct % stride,
        "spread": spread,
    }
    on_device = {name: tensor.to(input_ids.device, non_blocking=True) for name, tensor in tensors.items()}
    return Plan(lengths=tuple(lengths), **on_device)


def packed_length(rows: list[list[int]]) -> int:
    """How many tokens go through the model for these rows, including each row's last."""
    ordered = sorted(rows)
    return sum(map(len, rows)) - sum(common_prefix(*both) for both in pairwise(ordered))
