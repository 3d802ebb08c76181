"""When several processes train one run: which one this is, and how they agree. One process trivially agrees.

`accelerate launch` starts them and sets each one's rank in environment variables. Knows nothing of runs.
"""

from __future__ import annotations

import os

import torch
from accelerate import PartialState
from accelerate.utils import reduce

WORLD_SIZE = int(os.environ.get("WORLD_SIZE", "1"))
RANK = int(os.environ.get("RANK", "0"))
LOCAL_RANK = int(os.environ.get("LOCAL_RANK", "0"))

IS_MAIN_PROCESS = RANK == 0
"""Whether this is the process that writes to the run's folder."""


def all_reduce_any(*flags: bool) -> list[bool]:
    """Return *flags*, each true if it is true in any process."""
    return [bool(flag) for flag in _all_reduce(torch.tensor(flags, dtype=torch.int), "max").tolist()]


def all_reduce_sum(figures: torch.Tensor) -> torch.Tensor:
    """The elementwise sum of *figures* over all processes."""
    return _all_reduce(figures, "sum")


def _all_reduce(figures: torch.Tensor, reduction: str) -> torch.Tensor:
    if WORLD_SIZE == 1:
        return figures
    shared: torch.Tensor = reduce(figures.to(PartialState().device), reduction)
    return shared.to(figures.device)
