"""How a CPU multiplies float32 matrices. Knows nothing of models or of runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, cast

from ..errors import needing_extra

with needing_extra("train"):
    import torch

WORTH_ONEDNN = 50_000_000
"""Parameters from which a model's matrices are large enough to gain by it. What oneDNN keeps of each shape that it has
met is a gigabyte in a long run, which is much beside a small model and little beside what a large one takes."""
EXACT = 1e-5
"""The largest relative error of a product that still counts as float32: rounding leaves some 1e-6."""
ONEDNN, TORCH = "bf16", "ieee"
"""What torch calls the two. It hands float32 products to oneDNN only where bfloat16 is allowed for them; without AMX,
oneDNN computes in float32 all the same."""


def multiply_for(parameters: int) -> None:
    """Choose the library that multiplies from now on, for a model of so many *parameters*.

    torch takes MKL, which on AMD leaves half of an AVX-512 processor unused. The size of the model alone decides, not
    what the process did before: the two libraries round differently, and a run repeated is to leave the same bytes.
    """
    _matmul().fp32_precision = ONEDNN if parameters >= WORTH_ONEDNN and onednn_is_exact() else TORCH


@cache
def onednn_is_exact() -> bool:
    """Whether oneDNN computes in float32 here. With AMX it would round: the result of a product decides, not a name."""
    if not cast(Any, torch.backends.mkldnn).is_available():
        return False
    with _multiplying(ONEDNN):
        return _error_of_a_product() < EXACT


def as_usual() -> AbstractContextManager[None]:
    """Have torch multiply its own way within the context.

    Where a head takes the last places of padded rows, torch would copy its matrix for oneDNN, once for each row: six
    gigabytes for 56 rows of a vocabulary of 49,152.
    """
    return _multiplying(TORCH)


@contextmanager
def _multiplying(way: str) -> Iterator[None]:
    settings = _matmul()
    before, settings.fp32_precision = settings.fp32_precision, way
    try:
        yield
    finally:
        settings.fp32_precision = before


def _matmul() -> Any:
    return cast(Any, torch.backends.mkldnn).matmul


def _error_of_a_product() -> float:
    draw = torch.Generator().manual_seed(0)
    one, other = (torch.randn(64, 512, generator=draw), torch.randn(512, 256, generator=draw))
    exact = one.double() @ other.double()
    return float(((one @ other).double() - exact).abs().max() / exact.abs().max())
