"""On a CUDA device: the other attention kernel, half precision, autocast."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from dpo_hub.training.shared_prefix import shared_prefix
from dpo_hub.training.shared_prefix.limits import disagreement

from ..training.shared_prefix.models import SERVED, collate, random_pairs
from ..training.shared_prefix.test_shared_prefix import ask, both, policy

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

LENGTHS = ((9, 7, 5), (4, 3, 12), (15, 2, 3), (2, 8, 8))


@pytest.mark.parametrize("name", SERVED)
def test_bfloat16_errs_no_more_than_trl(name: str) -> None:
    """Over many batches, ours is as near to what float32 says as TRL's own bfloat16 is."""
    exact_model, model = policy(name).cuda(), policy(name).to("cuda", torch.bfloat16)
    model.load_state_dict(exact_model.state_dict())
    exact_model.load_state_dict(model.state_dict())
    router = "num_experts" in SERVED[name][1]
    errors = torch.zeros(2, 2)
    for seed in range(12):
        batch = {key: value.cuda() for key, value in collate(random_pairs(*LENGTHS, seed=seed)).items()}
        exact = ask(exact_model, batch, router=router)
        for way, answer in enumerate(both(model, batch, router=router)):
            errors[way, 0] += (answer.fields["log_probs"] - exact.fields["log_probs"]).norm().cpu()
            errors[way, 1] += ((answer.gradient - exact.gradient).norm() / exact.gradient.norm()).cpu()
    usual, ours = errors
    assert (ours <= 1.1 * usual).all(), errors


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", SERVED)
def test_rounding_is_no_difference(name: str, autocast: bool) -> None:
    """The first batch finds both ways to agree, with and without autocast around half-precision weights."""
    model = policy(name).cuda()
    if autocast:
        model.get_base_model().to(torch.bfloat16)
    batch = {key: value.cuda() for key, value in collate(random_pairs(*LENGTHS)).items()}
    with torch.autocast("cuda", torch.bfloat16) if autocast else nullcontext():
        assert disagreement(model, batch) is None
        with shared_prefix(model):
            model(**batch, use_cache=False, fused_lm_head=True).log_probs.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
