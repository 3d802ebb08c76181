"""How much memory a step takes and the device has, and keeping what was freed. Knows nothing of TRL or of runs."""

from __future__ import annotations

import ctypes
from typing import Any

import psutil
import torch
from transformers import PreTrainedConfig

ROOM = 0.8
"""The share of the free memory that activations may take; the rest is for logits, gradients and optimizer."""
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt, from malloc.h."""


def activation_bytes(config: PreTrainedConfig, tokens: int, dtype: torch.dtype) -> int:
    """Forecast what a forward pass over *tokens* keeps for the backward pass, without activation checkpointing.

    A decoder layer with adapters keeps some 14 vectors of the hidden size a token (around norms, queries, keys, values,
    attention and residuals) and 5 of the intermediate size (around the gate and its activation).
    """
    settings: Any = config.get_text_config()
    hidden, layers = settings.hidden_size, settings.num_hidden_layers
    between = getattr(settings, "intermediate_size", None) or 4 * hidden
    return int(tokens * layers * (14 * hidden + 5 * between) * dtype.itemsize)


def free_bytes(device: torch.device) -> int:
    """What the device can still give."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def keep_freed_memory() -> None:
    """Have freed memory kept for the next step instead of given back to the system, for this whole process.

    On a CPU each step's tensors are of other sizes than the last one's; giving their pages back and getting them zeroed
    again takes a good part of a small model's step. Does nothing where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 2**26)
