from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from dpo_hub.training import matmul
from dpo_hub.training.matmul import EXACT, TORCH, WORTH_ONEDNN, choose_matmul, onednn_is_exact


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    choose_matmul(0)


def test_products_stay_float32() -> None:
    """Whichever library multiplies, the result is as exact as float32 can be, for every shape of a model's layers."""
    choose_matmul(WORTH_ONEDNN)
    draw = torch.Generator().manual_seed(1)
    for rows, inner, columns in ((1, 64, 64), (2, 576, 1536), (700, 576, 192), (33, 1536, 576), (300, 16, 576)):
        one, other = torch.randn(rows, inner, generator=draw), torch.randn(inner, columns, generator=draw)
        exact = one.double() @ other.double()
        assert ((one @ other).double() - exact).abs().max() / exact.abs().max() < EXACT


def test_a_small_model_is_multiplied_torchs_way_whatever_was_loaded_before() -> None:
    """Otherwise a run would leave other bytes in a process that has had a large model."""
    draw = torch.Generator().manual_seed(1)
    one, other = torch.randn(300, 64, generator=draw), torch.randn(64, 576, generator=draw)
    choose_matmul(0)
    alone = one @ other
    choose_matmul(WORTH_ONEDNN)
    choose_matmul(WORTH_ONEDNN - 1)
    assert torch.equal(one @ other, alone)
    assert torch.backends.mkldnn.matmul.fp32_precision == TORCH


def test_products_that_would_be_rounded_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor that rounds to bfloat16 for the same setting, torch's own way stays."""
    monkeypatch.setattr(matmul, "_error_of_a_product", lambda: 1e-3)
    onednn_is_exact.cache_clear()
    try:
        choose_matmul(WORTH_ONEDNN)
        assert torch.backends.mkldnn.matmul.fp32_precision == TORCH
    finally:
        onednn_is_exact.cache_clear()
