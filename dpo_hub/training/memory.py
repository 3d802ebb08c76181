"""The memory that this process holds, its peak, and what it can still get, on CPU and CUDA. Knows nothing of TRL."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from ..errors import ModelError, needing_extra
from .machine import free_memory

with needing_extra("train"):
    import torch

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt, from malloc.h."""
OUT_OF_MEMORY_MESSAGES = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Parts of messages by which other errors report that memory ran out."""
LOADING = "Wait until the run that uses it has ended (dpo-hub runs), or use a smaller model."
"""What to do if a model does not fit."""


def free_bytes(device: torch.device) -> int:
    """The bytes that this process can still get on the device."""
    if device.type == "cuda":
        held_back = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held_back
    return free_memory()


def held_bytes(device: torch.device) -> int:
    """The bytes that this process holds: tensors on CUDA; on a CPU the whole process, after returning freed memory."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if library := _glibc():
        library.malloc_trim(0)
    return psutil.Process().memory_info().rss


def peak_bytes(device: torch.device) -> int:
    """The most bytes that this process has held: on CUDA since the statistics were reset, on a CPU since it started."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.is_file() else []
    most = next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)
    return max(most, psutil.Process().memory_info().rss)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether *error* reports that memory ran out. The CPU allocator raises a plain RuntimeError for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        said in str(error) for said in OUT_OF_MEMORY_MESSAGES
    )


@contextmanager
def explaining_out_of_memory(advice: str) -> Iterator[None]:
    """Turn out-of-memory errors into a `ModelError` with *advice* on what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(f"The device's memory is full. {advice}") from error


def keep_freed_memory() -> bool:
    """Keep freed memory for the next step instead of returning it to the system, for this whole process.

    On a CPU tensor sizes change from step to step; returning their pages and getting zeroed ones again takes much of a
    small model's step. Returns whether it worked; it needs glibc.
    """
    library = _glibc()
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26}
    return library is not None and all(library.mallopt(name, value) for name, value in settings.items())


@cache
def _glibc() -> Any:
    """The C library if it is glibc, else None."""
    try:
        library = ctypes.CDLL("libc.so.6")
        return library if library.mallopt and library.malloc_trim else None
    except (OSError, AttributeError):
        return None
