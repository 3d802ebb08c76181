"""How much memory a step takes and the device has, and keeping what was freed. Knows nothing of TRL or of runs."""

from __future__ import annotations

import ctypes
from typing import Any

import psutil

from ..errors import needing_extra

with needing_extra("train"):
    import torch
    from transformers import PreTrainedConfig

ROOM = 0.8
"""The share of the free memory that activations may take; the rest is for logits, gradients and optimizer."""
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt, from malloc.h."""


def activation_bytes(config: PreTrainedConfig, tokens: int, dtype: torch.dtype) -> int:
    """Forecast what a forward pass over *tokens* keeps for the backward pass, without activation checkpointing.

    A decoder layer with adapters keeps some 14 vectors of the hidden size a token (around norms, queries, keys, values,
    attention and residuals) and 5 of the intermediate size of each expert that it meets (around the gate).
    """
    settings: Any = config.get_text_config()
    hidden, layers = settings.hidden_size, settings.num_hidden_layers
    between = getattr(settings, "intermediate_size", None) or 4 * hidden
    between *= getattr(settings, "num_experts_per_tok", None) or 1
    return int(tokens * layers * (14 * hidden + 5 * between) * dtype.itemsize)


def free_bytes(device: torch.device) -> int:
    """What the device can still give."""
    if device.type == "cuda":
        held_back = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held_back
    return psutil.virtual_memory().available


def is_out_of_memory(error: BaseException) -> bool:
    """Whether *error* says that memory ran out. A CPU's allocator tells it as a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def keep_freed_memory() -> bool:
    """Have freed memory kept for the next step instead of given back to the system, for this whole process.

    On a CPU each step's tensors are of other sizes than the last one's; giving their pages back and getting them zeroed
    again takes a good part of a small model's step. Returns whether it worked; it takes glibc.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26}
    return all(mallopt(name, value) for name, value in settings.items())
