from __future__ import annotations

import pytest
import torch

from dpo_hub.training import products
from dpo_hub.training.products import EXACT, use_onednn


def test_products_stay_float32() -> None:
    """Whichever library multiplies, the result is as exact as float32 can be, for every shape of a model's layers."""
    use_onednn()
    draw = torch.Generator().manual_seed(1)
    for rows, inner, columns in ((1, 64, 64), (2, 576, 1536), (700, 576, 192), (33, 1536, 576), (300, 16, 576)):
        one, other = torch.randn(rows, inner, generator=draw), torch.randn(inner, columns, generator=draw)
        exact = one.double() @ other.double()
        assert ((one @ other).double() - exact).abs().max() / exact.abs().max() < EXACT


def test_products_that_would_be_rounded_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor that rounds to bfloat16 for the same setting, torch's own way stays."""
    monkeypatch.setattr(products, "_error_of_a_product", lambda: 1e-3)
    before = torch.backends.mkldnn.matmul.fp32_precision
    assert products.use_onednn.__wrapped__() is False
    assert torch.backends.mkldnn.matmul.fp32_precision == before
