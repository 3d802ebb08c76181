"""How a CPU multiplies float32 matrices. Knows nothing of models or of runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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


@cache
def use_onednn() -> bool:
    """Have oneDNN multiply float32 matrices on a CPU where it is as exact as torch's own way; returns whether it does.

    torch takes MKL, which on AMD leaves half of an AVX-512 processor unused. It hands products to oneDNN only where
    bfloat16 is allowed for them; without AMX, oneDNN computes in float32 all the same. With AMX it would round, so
    the result of one product decides, and not the name of the processor.
    """
    mkldnn: Any = torch.backends.mkldnn
    if not mkldnn.is_available():
        return False
    settings = mkldnn.matmul
    usual, settings.fp32_precision = settings.fp32_precision, "bf16"
    if _error_of_a_product() < EXACT:
        return True
    settings.fp32_precision = usual
    return False


@contextmanager
def as_usual() -> Iterator[None]:
    """Have torch multiply its own way within the context.

    Where a head takes the last places of padded rows, torch would copy its matrix for oneDNN, once for each row: six
    gigabytes for 56 rows of a vocabulary of 49,152.
    """
    settings = cast(Any, torch.backends.mkldnn).matmul
    before, settings.fp32_precision = settings.fp32_precision, "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before


def _error_of_a_product() -> float:
    draw = torch.Generator().manual_seed(0)
    one, other = (torch.randn(64, 512, generator=draw), torch.randn(512, 256, generator=draw))
    exact = one.double() @ other.double()
    return float(((one @ other).double() - exact).abs().max() / exact.abs().max())
