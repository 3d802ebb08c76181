"""The same numbers as TRL's own way, for each architecture and each kind of batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import logsigmoid
from trl.trainer.utils import add_fused_lm_head

from dpo_hub.training.shared_prefix import shared_prefix
from dpo_hub.training.shared_prefix.head import LOGITS_AT_ONCE

from .models import SERVED, VOCABULARY, Pair, collate, random_pairs, tiny_model, with_adapter

FIELDS = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
RAGGED = random_pairs((9, 7, 5), (4, 3, 12), (15, 1, 1), (2, 8, 8))


def fused(model: Any) -> Any:
    """Give *model* the head that TRL gives it."""
    add_fused_lm_head(model, outputs=FIELDS)
    return model


def policy(name: str, **lora: Any) -> PeftModel:
    """A served architecture as TRL's trainer has it: fused head below, adapter around."""
    architecture, config = SERVED[name]
    return with_adapter(fused(tiny_model(architecture, **config)), **lora)


@dataclass
class Answer:
    """What a model said of a batch, and the gradient of a DPO loss over it."""

    fields: dict[str, Tensor]
    sequences: Tensor
    gradient: Tensor


def ask(model: Any, batch: dict[str, Tensor], *, router: bool = False) -> Answer:
    """Ask as TRL's trainer does; the loss weighs each sequence differently, so that a mix-up shows."""
    extra = {"output_router_logits": True} if router else {}
    out = model(**batch, **extra, use_cache=False, fused_lm_head=True)
    sequences = out.log_probs.float().sum(1)
    chosen, rejected = sequences.chunk(2)
    loss = -logsigmoid(0.02 * torch.arange(1, len(chosen) + 1, device=chosen.device) * (chosen - 1.3 * rejected)).mean()
    if router:
        loss = loss + out.aux_loss
    model.zero_grad()
    loss.backward()
    gradient = torch.cat([p.grad.flatten().float() for p in model.parameters() if p.grad is not None])
    names = [*FIELDS, "aux_loss"] if router else FIELDS
    return Answer({name: getattr(out, name).detach().float() for name in names}, sequences.detach(), gradient)


def both(model: Any, batch: dict[str, Tensor], *, router: bool = False) -> tuple[Answer, Answer]:
    """TRL's answer and ours."""
    usual = ask(model, batch, router=router)
    with shared_prefix(model):
        return usual, ask(model, batch, router=router)


def assert_same(usual: Answer, ours: Answer) -> None:
    """Sequences within 1e-4 nats, gradients within a thousandth."""
    assert usual.gradient.norm() > 1e-3, "nothing flows back, so the comparison would be empty"
    torch.testing.assert_close(ours.sequences, usual.sequences, atol=1e-4, rtol=0)
    assert (ours.gradient - usual.gradient).norm() <= 1e-3 * usual.gradient.norm()
    for name, field in usual.fields.items():
        torch.testing.assert_close(ours.fields[name], field, atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", SERVED)
def test_an_architecture_gives_the_same(name: str) -> None:
    """Log-probabilities, the other fields and adapter gradients are TRL's; the routers' balance too where there are."""
    assert_same(*both(policy(name), collate(RAGGED), router="num_experts" in SERVED[name][1]))


BATCHES: dict[str, list[Pair]] = {
    "nothing shared": [([], [3, 4, 5], [6, 7]), ([], [8, 9], [10, 11, 12, 13])],
    "identical rows": [([5, 6, 7], [8, 9], [8, 9]), ([5, 6], [4, 4, 4], [3])],
    "one row begins the other": [([5, 6], [7, 8, 9], [7, 8])],
    "one-token replies": [([5, 6, 7, 8], [9], [10]), ([3], [4], [5])],
    "replies that begin alike": [([5, 6], [7, 8, 9, 10], [7, 8, 11])],
    "a prompt that pairs share": [([5, 6, 7, 8], [9, 3], [10]), ([5, 6, 7, 8], [11, 12], [9, 4]), ([5, 6], [3], [4])],
    "a single pair": random_pairs((6, 4, 9)),
    "many pairs": random_pairs(*[(n % 7 + 1, n % 5 + 1, n % 3 + 2) for n in range(20)]),
}


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_a_batch_gives_the_same(name: str, kind: str) -> None:
    """However prompts and replies overlap."""
    assert_same(*both(policy(name), collate(BATCHES[kind])))


def test_rows_cut_at_max_length_give_the_same() -> None:
    """A row without its end, and one whose whole reply is cut away."""
    assert_same(*both(policy("llama"), collate([*RAGGED, *random_pairs((14, 3, 5))], max_length=13)))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=6))
def test_any_mix_of_lengths_gives_the_same(lengths: list[tuple[int, int, int]]) -> None:
    """Hypothesis finds no lengths for which both ways differ."""
    assert_same(*both(MISTRAL, collate(random_pairs(*lengths))))


MISTRAL = policy("mistral, window")


def test_a_window_and_a_cap_make_a_difference() -> None:
    """Were they ignored, the models that have them would show it."""
    batch, wide = collate(RAGGED), {"sliding_window": 100}
    for name, other in (("mistral, window", wide), ("gemma3", wide), ("gemma2", {"attn_logit_softcapping": 50.0})):
        architecture, config = SERVED[name]
        changed = with_adapter(fused(tiny_model(architecture, **config | other)))
        with shared_prefix(changed):
            difference = ask(changed, batch).sequences - ask(policy(name), batch).sequences
        assert difference.abs().max() > 0.1, name


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"use_rslora": True}, {"bias": "all"}], ids=str)
def test_other_adapters_give_the_same(lora: dict[str, Any]) -> None:
    """DoRA, rank-stabilised LoRA, and biases."""
    assert_same(*both(policy("qwen2", **lora), collate(RAGGED)))


@pytest.mark.parametrize("name", ["llama", "gemma3", "mixtral"])
def test_activations_computed_twice_give_the_same(name: str) -> None:
    """Layers that run again in the backward pass find the same attention."""
    usual, once = both(policy(name), collate(RAGGED))
    model = policy(name)
    model.enable_input_require_grads()
    model.activation_checkpointing_enable()
    assert model.get_base_model().is_activation_checkpointing
    with shared_prefix(model):
        twice = ask(model, collate(RAGGED))
    assert_same(usual, twice)
    torch.testing.assert_close(twice.gradient, once.gradient)


def test_logits_are_formed_a_tile_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of any height give the same."""
    model, batch = policy("gemma2"), collate(RAGGED)
    for rows in (1, 5, 1000):
        monkeypatch.setitem(LOGITS_AT_ONCE, "cpu", rows * VOCABULARY)
        assert_same(*both(model, batch))


def test_the_model_is_left_as_it_was() -> None:
    """Afterwards, and for every call but the fused head's, nothing has changed."""
    model, batch = policy("llama"), collate(RAGGED)
    base: Any = model.get_base_model()
    forward, attention = base.forward, base.config._attn_implementation
    ids = batch["input_ids"]
    before = model(input_ids=ids).logits
    with shared_prefix(model):
        ask(model, batch)
        assert torch.equal(model(input_ids=ids).logits, before)
        generated = model.generate(input_ids=ids[:1, :4], max_new_tokens=3, do_sample=False)
    assert (base.forward, base.config._attn_implementation) == (forward, attention)
    assert torch.equal(generated, model.generate(input_ids=ids[:1, :4], max_new_tokens=3, do_sample=False))


def test_a_batch_with_nothing_to_predict_has_a_gradient_of_zero() -> None:
    """It does not break the step."""
    model = policy("llama")
    batch = collate(RAGGED)
    batch["labels"] = torch.full_like(batch["labels"], -100)
    with shared_prefix(model):
        model(**batch, fused_lm_head=True).log_probs.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3", "gpt_neox"])
def test_bfloat16_errs_no_more_than_trl(name: str) -> None:
    """Over many batches, ours is as near to what float32 says as TRL's own bfloat16 is."""
    exact_model, rounded_model = policy(name), policy(name).to(torch.bfloat16)
    rounded_model.load_state_dict(exact_model.state_dict())
    exact_model.load_state_dict(rounded_model.state_dict())  # the same weights, once rounded
    errors = torch.zeros(2, 2)
    for seed in range(12):
        batch = collate(random_pairs((9, 7, 5), (4, 3, 12), (15, 2, 3), (2, 8, 8), seed=seed))
        exact = ask(exact_model, batch)
        for way, answer in enumerate(both(rounded_model, batch)):
            errors[way] += torch.stack(
                [
                    (answer.fields["log_probs"] - exact.fields["log_probs"]).norm(),
                    (answer.gradient - exact.gradient).norm() / exact.gradient.norm(),
                ]
            )
    usual, ours = errors
    assert (ours <= 1.05 * usual).all(), errors
