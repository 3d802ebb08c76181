"""Models that the shared prefix cannot serve are told before a wrong number comes of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from torch import Tensor

from dpo_hub.training.shared_prefix import shared_prefix
from dpo_hub.training.shared_prefix.limits import TOLERANCE, disagreement, unsupported_reason

from .models import COMMON, SERVED, collate, random_pairs, tiny_model, with_adapter
from .test_shared_prefix import fused

BATCH = collate(random_pairs((9, 7, 5), (4, 3, 12)))
SINKS = {"num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": ["full_attention"] * 3}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "state space": ("mamba", {"state_size": 4}, "kind linear_attention"),
    "attention and state space": ("lfm2", {"layer_types": ["conv", "full_attention", "conv"]}, "of the kind conv"),
    "linear attention": ("qwen3_next", {"num_experts": 2, "num_experts_per_tok": 1}, "kind linear_attention"),
    "distance in the scores": ("bloom", {}, "attention cannot be exchanged"),
    "distance in the scores, too": (
        "mpt",
        {"d_model": 32, "n_heads": 4, "n_layers": 2},
        "attention cannot be exchanged",
    ),
    "seen both ways": ("gemma3_text", {"use_bidirectional_attention": True}, "see what comes after"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_can_be_seen_is_told(kind: str) -> None:
    """State spaces, linear attention, other position schemes and bidirectional models, each with its reason."""
    architecture, config, told = REFUSED[kind]
    reason = unsupported_reason(tiny_model(architecture, **config))
    assert reason is not None
    assert told in reason


@pytest.mark.parametrize("name", SERVED)
def test_the_served_architectures_are_not_refused(name: str) -> None:
    """Nothing is wrong with them, from outside and on a batch."""
    architecture, config = SERVED[name]
    model = with_adapter(fused(tiny_model(architecture, **config)))
    assert unsupported_reason(model) is None
    assert disagreement(model, BATCH) is None
    assert disagreement(model, BATCH, gradient=True) is None


def test_a_learned_prompt_is_told() -> None:
    """Prompt tuning puts tokens before the prompt that no plan knows."""
    tuned = get_peft_model(tiny_model("llama"), PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    assert unsupported_reason(tuned) == "its adapter learns a prompt"


def test_a_trained_head_is_told() -> None:
    """The gradient of the head's own weights is not formed."""
    assert unsupported_reason(with_adapter(tiny_model("llama"), modules_to_save=["lm_head"])) == "its head is trained"
    assert unsupported_reason(tiny_model("llama")) == "its head is trained"


def test_sinks_are_found_on_the_first_batch() -> None:
    """GPT-OSS looks like the others from outside; its attention asks for sinks, which are not known here."""
    model = fused(tiny_model("gpt_oss", **SINKS)).requires_grad_(False)
    assert unsupported_reason(model) is None
    assert disagreement(model, BATCH) == "its attention has sinks or a position bias"


def test_a_window_that_is_not_passed_on_is_found() -> None:
    """A model that has its window in the mask alone would see too far."""
    model = fused(tiny_model("phimoe", sliding_window=6, num_local_experts=2)).requires_grad_(False)
    assert disagreement(model, BATCH) == "its attention has a window that it does not pass on"


def test_a_difference_is_found() -> None:
    """A model that counts positions by itself passes for a Llama from outside, and the first batch shows it."""
    model = fused(tiny_model("llama")).requires_grad_(False)
    by_place = torch.randn(100, COMMON["hidden_size"])
    embeddings: Any = model.get_input_embeddings()
    embeddings.register_forward_hook(lambda _module, _args, embedded: embedded + by_place[: embedded.size(1)])
    assert unsupported_reason(model) is None
    assert "the log-probabilities of both ways differ by" in (disagreement(model, BATCH) or "")


def test_a_gradient_that_is_lost_is_found() -> None:
    """The same log-probabilities, but nothing flows back through half of the layers of a packed row."""
    model = with_adapter(fused(tiny_model("llama")))
    layers: Any = model.get_base_model().model.layers
    layers[1].register_forward_hook(lambda _module, _args, out: out.detach() if len(out) == 1 else out)
    assert disagreement(model, BATCH) is None
    assert "the gradients of both ways differ by" in (disagreement(model, BATCH, gradient=True) or "")
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_is_no_difference(dtype: torch.dtype) -> None:
    """In half precision two right ways are well within the tolerance, and a wrong window is not."""
    model = with_adapter(fused(tiny_model("mistral", sliding_window=6))).to(dtype)
    assert disagreement(model, BATCH) is None
    assert disagreement(model, BATCH, gradient=True) is None
    with torch.no_grad():
        right = model(**BATCH, use_cache=False, fused_lm_head=True).log_probs
        model.config.sliding_window = 100
        with shared_prefix(model):
            wrong = model(**BATCH, use_cache=False, fused_lm_head=True).log_probs
    assert _mean_difference(right, wrong) > TOLERANCE[dtype]


def _mean_difference(one: Tensor, other: Tensor) -> float:
    return (one - other)[BATCH["labels"][:, 1:] != -100].float().abs().mean().item()
