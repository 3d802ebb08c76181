"""When several processes train one run: which one this is, and how they agree. One process trivially agrees.

`accelerate launch` starts them and sets each one's rank in environment variables. Knows nothing of runs.
"""

from __future__ import annotations

import os

import torch
from accelerate import PartialState
from accelerate.utils import reduce

COUNT = int(os.environ.get("WORLD_SIZE", "1"))
RANK = int(os.environ.get("RANK", "0"))
LOCAL_RANK = int(os.environ.get("LOCAL_RANK", "0"))

FIRST = RANK == 0
"""Whether this is the process that writes to the run's folder."""


def any_of_all(*flags: bool) -> list[bool]:
    """Return *flags*, each true if it is true in any process."""
    return [bool(flag) for flag in _of_all(torch.tensor(flags, dtype=torch.int), "max").tolist()]


def sum_of_all(figures: torch.Tensor) -> torch.Tensor:
    """The elementwise sum of *figures* over all processes."""
    return _of_all(figures, "sum")


def _of_all(figures: torch.Tensor, reduction: str) -> torch.Tensor:
    if COUNT == 1:
        return figures
    shared: torch.Tensor = reduce(figures.to(PartialState().device), reduction)
    return shared.to(figures.device)
