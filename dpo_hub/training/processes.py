"""Where several processes train one run: which of them this is, and how they agree. A single one agrees with itself.

`accelerate launch` starts them and tells each its place by environment variables. Knows nothing of runs.
"""

from __future__ import annotations

import os

import torch

COUNT = int(os.environ.get("WORLD_SIZE", "1"))
RANK = int(os.environ.get("RANK", "0"))
LOCAL_RANK = int(os.environ.get("LOCAL_RANK", "0"))

FIRST = RANK == 0
"""Whether this is the one that writes to the run's folder."""


def any_of_all(*flags: bool) -> list[bool]:
    """Each of *flags*, true where it is for any of the processes."""
    if COUNT == 1:
        return list(flags)
    told = _tensor([float(flag) for flag in flags])
    torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
    return [bool(flag) for flag in told.tolist()]


def sum_of_all(figures: torch.Tensor) -> torch.Tensor:
    """The sum of the processes' *figures*, element by element."""
    if COUNT == 1:
        return figures
    told = _tensor(figures)
    torch.distributed.all_reduce(told)
    return told.to(figures.device)


def _tensor(values: object) -> torch.Tensor:
    cuda = torch.distributed.get_backend() == "nccl"
    return torch.as_tensor(values, device=f"cuda:{LOCAL_RANK}" if cuda else "cpu")
