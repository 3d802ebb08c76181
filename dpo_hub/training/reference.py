"""The reference log-probabilities of each pair, measured once and cached on disk for later runs.

The reference never changes, so its log-probabilities depend only on the model and the pairs: a second epoch, the
evaluation, or a run with another loss, β, rank or seed need not measure them again. Knows nothing of TRL.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from datasets import Dataset
from transformers import PreTrainedModel

from .processes import IS_MAIN_PROCESS, RANK, WORLD_SIZE, all_reduce_any, all_reduce_sum

log = logging.getLogger(__name__)

Tokens = Mapping[str, Sequence[int]]
"""A pair as tokens: `prompt_ids`, `chosen_ids` and `rejected_ids`."""
Figures = np.ndarray[Any, np.dtype[np.float32]]
Measure = Callable[[list[Tokens]], torch.Tensor]
"""Takes a batch of pairs; returns log π_ref of chosen and rejected, [pairs, 2]."""
PROGRESS_INTERVAL = 10.0
"""Seconds between two progress messages in the log."""
TOKEN_PARTS = ("prompt_ids", "chosen_ids", "rejected_ids")


def fingerprint(model: PreTrainedModel, adapter: str | None = None) -> str:
    """Hash a base model's configuration and every byte of its weights, independent of where it came from.

    Of its adapters, only the one named *adapter* is included.
    """
    settings = model.config.to_dict()
    for incidental in ("_name_or_path", "transformers_version"):
        settings.pop(incidental, None)
    seen = xxhash.xxh3_128(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if "lora_" not in name or (adapter and f".{adapter}." in name):
            seen.update(f"{name.replace('.base_layer.', '.')} {tensor.dtype} {tuple(tensor.shape)}".encode())
            seen.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return seen.hexdigest()


def reference_log_probs(
    pairs: Dataset, measure: Measure, *, key: Sequence[str], folder: Path, batch_size: int
) -> Figures:
    """Return log π_ref(chosen | prompt) and log π_ref(rejected | prompt) of *pairs*, [pairs, 2] in nats.

    They are measured in a fixed order, sorted by prompt, so that neither the split nor the order of a file makes a
    difference, and pairs with the same prompt share it.

    Args:
        pairs: `prompt_ids`, `chosen_ids` and `rejected_ids` of each, in any order, repeated or not.
        measure: measures a batch.
        key: everything that the figures depend on besides the tokens.
        folder: the cache.
        batch_size: pairs in a batch.
    """
    names = [_name(pair) for pair in pairs]
    first = {name: row for row, name in enumerate(names)}
    ordered = sorted(first)
    of_all = hashlib.sha256(json.dumps(list(key)).encode())
    for name in ordered:
        of_all.update(hashlib.sha256(b"".join(name)).digest())
    file = folder / f"{of_all.hexdigest()}.npy"
    known = _kept(file, len(ordered))
    (missing,) = all_reduce_any(known is None)
    if known is None or missing:
        log.info("measuring what the base model says of %d pairs", len(ordered))
        measured, said = torch.zeros(len(ordered), 2), time.monotonic()
        for start in range(RANK * batch_size, len(ordered), WORLD_SIZE * batch_size):
            if time.monotonic() - said > PROGRESS_INTERVAL:
                log.info("%d of %d pairs measured", start, len(ordered))
                said = time.monotonic()
            batch = [pairs[first[name]] for name in ordered[start : start + batch_size]]
            measured[start : start + batch_size] = measure(batch).float().cpu()
        known = all_reduce_sum(measured).numpy()
        if IS_MAIN_PROCESS:
            _keep(known, file)
    else:
        log.info("what the base model says of these pairs is known from an earlier run")
    place = {name: row for row, name in enumerate(ordered)}
    return known[[place[name] for name in names]]


def _name(pair: Tokens) -> tuple[bytes, bytes]:
    """A pair's prompt and a digest of the whole pair; sorting by it puts pairs with the same prompt together."""
    prompt, chosen, rejected = (np.asarray(pair[part], dtype=">u4").tobytes() for part in TOKEN_PARTS)
    return prompt, hashlib.sha256(b"%d %d " % (len(prompt), len(chosen)) + prompt + chosen + rejected).digest()


def _keep(figures: Figures, file: Path) -> None:
    """Write *file* atomically. If it cannot be written, the figures are measured again the next time."""
    aside = file.with_name(f".{secrets.token_hex(4)}.npy")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(aside, figures, allow_pickle=False)
        aside.replace(file)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        log.warning("%s cannot be written (%s); another run will measure the base model again", file, error.strerror)


def _kept(file: Path, pairs: int) -> Figures | None:
    """The contents of the file, or None if it is missing or incomplete."""
    try:
        kept: Figures = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return kept if kept.shape == (pairs, 2) and bool(np.isfinite(kept).all()) else None
