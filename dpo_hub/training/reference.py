"""What the reference says of each pair, measured once and kept on disk for runs to come.

The reference never changes, so its log-probabilities belong to the base model and the pairs alone: a second epoch, the
evaluation, another recipe or a sweep need not measure them again. Knows nothing of TRL.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from transformers import PreTrainedModel

log = logging.getLogger(__name__)

Tokens = Mapping[str, Sequence[int]]
"""A pair as tokens: `prompt_ids`, `chosen_ids` and `rejected_ids`."""
Measure = Callable[[list[Tokens]], torch.Tensor]
"""Takes a batch of pairs; returns log π_ref of chosen and of rejected, [pairs, 2]."""
PARTS = ("prompt_ids", "chosen_ids", "rejected_ids")


def fingerprint(model: PreTrainedModel) -> str:
    """Name a base model by its configuration and every byte of its weights, wherever it was loaded from."""
    settings = model.config.to_dict()
    for incidental in ("_name_or_path", "transformers_version"):
        settings.pop(incidental, None)
    seen = xxhash.xxh3_128(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        seen.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        seen.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return seen.hexdigest()


def reference_log_probs(
    pairs: Sequence[Tokens], measure: Measure, *, key: Sequence[Any], folder: Path, batch_size: int
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return log π_ref(chosen | prompt) and log π_ref(rejected | prompt) of *pairs*, [pairs, 2] in nats.

    They are measured in an order of their own, prompt by prompt, so that neither the split nor the order of a file
    makes a difference, and pairs with the same prompt share it.

    Args:
        pairs: in any order, repeated or not.
        measure: how a batch is measured.
        key: all that the figures depend on beside the tokens.
        folder: where they are kept.
        batch_size: pairs in a batch.
    """
    names = [_name(pair) for pair in pairs]
    order = {name: place for place, name in enumerate(sorted(set(names)))}
    of_all = hashlib.sha256(repr([key, list(order)]).encode()).hexdigest()
    file = folder / f"{of_all}.npy"
    known = _kept(file, len(order))
    if known is None:
        log.info("measuring what the base model says of %d pairs", len(order))
        by_name = dict(zip(names, pairs, strict=True))
        batches = [list(order)[start : start + batch_size] for start in range(0, len(order), batch_size)]
        measured = [measure([by_name[name] for name in batch]) for batch in batches]
        known = torch.cat(measured).float().cpu().numpy()
        folder.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f".{secrets.token_hex(4)}.npy")
        np.save(aside, known, allow_pickle=False)
        aside.replace(file)
    else:
        log.info("what the base model says of these pairs is known from an earlier run")
    return known[[order[name] for name in names]]


def _name(pair: Tokens) -> tuple[bytes, bytes]:
    """A pair's tokens; sorted, pairs with the same prompt are neighbours."""
    prompt, chosen, rejected = (np.asarray(pair[part], dtype=">u4").tobytes() for part in PARTS)
    return prompt, hashlib.sha256(b"%d " % len(chosen) + chosen + rejected).digest()


def _kept(file: Path, pairs: int) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """What the file holds, or None where there is none or it is not whole."""
    try:
        kept: np.ndarray[Any, np.dtype[np.float32]] = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return kept if kept.shape == (pairs, 2) and bool(np.isfinite(kept).all()) else None
