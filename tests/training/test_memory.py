from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from trl.trainer.utils import add_fused_lm_head

from dpo_hub.training.memory import activation_bytes
from dpo_hub.training.shared_prefix import shared_prefix

from .shared_prefix.models import collate, random_pairs, tiny_model, with_adapter


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma", "gpt2"])
def test_the_forecast_is_near_what_is_kept(name: str) -> None:
    """What autograd keeps of a forward pass is between a third less and a third more than was forecast."""
    wide = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "head_dim": 64}
    model = tiny_model(name, **wide, max_position_embeddings=1024, layer_types=None, sliding_window=None)
    add_fused_lm_head(model)
    policy = with_adapter(model)
    weights = {parameter.untyped_storage().data_ptr() for parameter in policy.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = collate(random_pairs((100, 60, 80), (90, 50, 40)))
    with shared_prefix(policy), saved_tensors_hooks(keep, lambda tensor: tensor):
        alive = policy(**batch, fused_lm_head=True)
    assert alive.log_probs is not None
    forecast = activation_bytes(model.config, 2 + 100 + 59 + 79 + 90 + 49 + 39, torch.float32)
    assert sum(kept.values()) == pytest.approx(forecast, rel=0.33)


def test_freed_memory_is_kept_without_harm() -> None:
    """The C library takes the settings, and memory can still be had and given back."""
    code = (
        "from dpo_hub.training.memory import keep_freed_memory; import torch; print(keep_freed_memory())\n"
        "print(sum(float(torch.ones(n, 2**20).sum()) for n in range(1, 20)) / 2**20)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    worked, total = done.stdout.split()
    assert worked == str(platform.libc_ver()[0] == "glibc")
    assert float(total) == sum(range(1, 20))
