"""Chooses how a CPU multiplies float32 matrices. Knows nothing of models or of runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, cast

from ..errors import needing_extra

with needing_extra("train"):
    import torch

WORTH_ONEDNN = 50_000_000
"""The number of parameters from which a model's matrices are large enough for oneDNN to be faster. What oneDNN caches
per shape reaches a gigabyte in a long run: a lot next to a small model, little next to a large one."""
EXACT = 1e-5
"""The largest relative error of a product that still counts as float32, whose rounding error is about 1e-6."""
ONEDNN, TORCH = "bf16", "ieee"
"""torch's settings for the two. It passes float32 products to oneDNN only if bfloat16 is allowed for them; without AMX,
oneDNN still computes in float32."""


def choose_matmul(parameters: int) -> None:
    """Choose the matrix library from now on, for a model with this number of *parameters*.

    torch's default, MKL, leaves half of an AMD AVX-512 processor unused. On a given machine the model size alone
    decides, not what the process did before: the two libraries round differently, and a repeated run must give the same
    bytes.
    """
    _matmul().fp32_precision = ONEDNN if parameters >= WORTH_ONEDNN and onednn_is_exact() else TORCH


@cache
def onednn_is_exact() -> bool:
    """Whether oneDNN computes in float32 here. With AMX it would round, so this tests a product, not the CPU's name."""
    if not cast(Any, torch.backends.mkldnn).is_available():
        return False
    with _multiplying(ONEDNN):
        return _error_of_a_product() < EXACT


def default_matmul() -> AbstractContextManager[None]:
    """Use torch's default multiplication within the context.

    When a head is applied to the last positions of padded rows, torch would copy its matrix for oneDNN once per row:
    six gigabytes for 56 rows and a vocabulary of 49,152.
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
