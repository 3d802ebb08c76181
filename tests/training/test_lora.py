"""Adapted layers in fewer operations: the same numbers, and only where they are plain."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from dpo_hub.training.lora import Adapted, fused_lora


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("trained_input", [True, False])
def test_the_gradients_are_those_of_the_formula(with_bias: bool, trained_input: bool) -> None:
    """Of the input, A and B, checked against differences; the base's weight and bias have none."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=trained_input)
    down, up = (torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in ((2, 4), (5, 2)))
    weight, bias = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, dtype=torch.float64) if with_bias else None

    def adapted(*inputs: Any) -> Any:
        return Adapted.apply(*inputs)  # type: ignore[no-untyped-call]

    expected = nn.functional.linear(x, weight, bias) + 1.5 * (x @ down.T @ up.T)
    torch.testing.assert_close(adapted(x, weight, bias, down, up, 1.5), expected)
    assert torch.autograd.gradcheck(adapted, (x, weight, bias, down, up, 1.5))


def layer(**settings: Any) -> Any:
    """A model of one linear layer with an adapter that does something."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["0"], init_lora_weights=False, **settings)
    return get_peft_model(nn.Sequential(nn.Linear(4, 5)), config)  # type: ignore[arg-type]


def ways(model: Any, x: torch.Tensor) -> tuple[str | None, str | None]:
    """By what the output is computed, outside and within."""
    outside = model(x).grad_fn.name()
    with fused_lora(model):
        return outside, model(x).grad_fn.name()


def test_a_plain_layer_is_computed_this_way_for_as_long_as_the_context_lasts() -> None:
    """With the adapter on; with it off, the layer is the base's alone. Afterwards all is as it was."""
    model, x = layer(), torch.randn(3, 4, requires_grad=True)
    assert ways(model, x) == ("AddBackward0", "AdaptedBackward")
    usual = model(x)
    with fused_lora(model):
        torch.testing.assert_close(model(x), usual)
        with model.disable_adapter():
            torch.testing.assert_close(
                model(x), nn.functional.linear(x, *model.base_model.model[0].base_layer.parameters())
            )
    assert model(x).grad_fn.name() == "AddBackward0"


@pytest.mark.parametrize(
    "settings", [{"lora_dropout": 0.1}, {"use_dora": True}, {"bias": "all"}, {"lora_bias": True}, {"use_rslora": True}]
)
def test_other_layers_stay_with_peft(settings: dict[str, Any]) -> None:
    """What has dropout, a magnitude or a trained bias is left alone; a scale of another kind is only a scale."""
    _, within = ways(layer(**settings), torch.randn(3, 4))
    assert (within == "AdaptedBackward") == ("use_rslora" in settings)


def test_several_adapters_at_once_are_left_to_peft() -> None:
    """Neither the sum of two nor one per row is what is computed here."""
    model, x = layer().eval(), torch.randn(2, 4)
    model.add_adapter("other", LoraConfig(r=2, target_modules=["0"], init_lora_weights=False))
    for usual in (lambda: model(x), lambda: model(x, adapter_names=["default", "other"])):
        model.base_model.set_adapter(["default", "other"])
        expected = usual()
        with fused_lora(model):
            torch.testing.assert_close(usual(), expected)
