"""Tiny random models of several architectures, with adapters that change much, merged and read again."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import Linear
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from dpo_hub.errors import ModelError
from dpo_hub.preferences import PreferencePair, Preferences
from dpo_hub.recipe import Recipe
from dpo_hub.runs.base_model import EMBEDDED
from dpo_hub.runs.run import Run
from dpo_hub.training.logits import logits_of, prompts_of
from dpo_hub.training.merged import merge, require_same
from dpo_hub.training.policy import load_tokenizer

from .shared_prefix.models import tiny_model, with_adapter

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": False}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "gpt2": ("gpt2", {"n_inner": 48}),
    "qwen3": ("qwen3", {}),
    "gemma3": ("gemma3_text", {}),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Make = Callable[..., Run]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that makes a run with a random base model in a folder and an adapter of the size asked for."""

    def run(name: str = "llama", dtype: str = "float32", *, size: float = 1.0, std: float = 0.4) -> Run:
        kind, settings = MODELS[name]
        tokenizer = load_tokenizer(EMBEDDED)
        base = tiny_model(kind, **settings, vocab_size=len(tokenizer), eos_token_id=1).to(DTYPES[dtype])
        with torch.no_grad():
            for parameter in base.parameters():
                parameter.mul_(std / 0.4 if parameter.dim() > 1 else 1)
        base.save_pretrained(tmp_path / "base")
        tokenizer.save_pretrained(tmp_path / "base")
        made = Run.create(_preferences(), Recipe(model=str(tmp_path / "base"), held_out=0.2))
        policy = with_adapter(base)
        for parameter_name, parameter in policy.named_parameters():
            if "lora_B" in parameter_name:
                parameter.data = parameter.data.float() * size
        policy.save_pretrained(str(made.adapter), save_embedding_layers=False)
        tokenizer.save_pretrained(made.adapter)
        return made

    return run


def _preferences() -> Preferences:
    def said(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    ask = ["Where is my order?", "Is it blue?", "How do I return it?", "Hello!", "Thank you."]
    pairs = [
        PreferencePair(said("user", text), said("assistant", "Yes."), said("assistant", "No."), number)
        for number, text in enumerate(ask)
    ]
    return Preferences("few.csv", "prompt, chosen, rejected", pairs)


@torch.inference_mode()
def _logits(model: Any, run: Run) -> torch.Tensor:
    found = logits_of(model.float().eval(), load_tokenizer(run.adapter), prompts_of(run))
    return torch.cat([logits.flatten() for logits in found])


def _base_and_adapter(run: Run) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits before, and those after."""
    base = AutoModelForCausalLM.from_pretrained(run.recipe.model, dtype="auto")
    before = _logits(base, run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PEFT notes of GPT-2's transposed weights
        return before, _logits(PeftModel.from_pretrained(base, run.adapter), run)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODELS)
def test_the_folder_alone_computes_what_base_and_adapter_do(name: str, dtype: str, make: Make, tmp_path: Path) -> None:
    """Transformers alone loads the folder, in the base's dtype, and gives the logits of base and adapter."""
    run, out = make(name, dtype), tmp_path / "merged"
    before, after = _base_and_adapter(run)
    check = merge(run, out)
    model = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert (check.dtype, model.dtype, check.prompts, check.stops) == (dtype, DTYPES[dtype], 5, ["<|end|>"])
    assert (model.config.model_type, model.config.tie_word_embeddings) == (
        MODELS[name][0],
        AutoModelForCausalLM.from_pretrained(run.recipe.model).config.tie_word_embeddings,
    )
    found = _logits(model, run)
    large, effect = after.abs().max(), (after - before).norm()
    assert (after - before).abs().max() > 0.1 * large
    assert (found - after).norm() <= (1e-4 if dtype == "float32" else 0.2) * effect
    assert (check.worst <= 1e-4) == (dtype == "float32")
    assert check.share == pytest.approx(1, abs=0.05)


def test_what_is_in_the_folder(make: Make, tmp_path: Path) -> None:
    """Weights without pickles and in the base's dtype, nothing of an adapter, and the tokenizer with its template."""
    run, out = make("llama, tied", "bfloat16"), tmp_path / "merged"
    merge(run, out)
    assert {path.name for path in out.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    with (
        safe_open(out / "model.safetensors", "pt") as merged,
        safe_open(Path(run.recipe.model) / "model.safetensors", "pt") as base,
    ):
        assert set(merged.keys()) == set(base.keys())
        assert {merged.get_slice(name).get_dtype() for name in merged.keys()} == {"BF16"}  # noqa: SIM118
    own, theirs = AutoTokenizer.from_pretrained(out), load_tokenizer(run.adapter)
    assert own.chat_template == theirs.chat_template
    assert own.get_vocab() == theirs.get_vocab()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrong", [(0, 1.0), (0, 1e-2), (0, 1e-4), (2, 1.0), (2, 1e-2), (2, 1e-4)])
def test_an_adapter_that_is_missing_or_there_twice_is_refused(
    wrong: tuple[int, float], dtype: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge that leaves the adapter out, or doubles it, is told in one line, however small it is, and not saved."""
    times, size = wrong
    run = make("llama", dtype, size=size)
    delta = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda layer, adapter: times * delta(layer, adapter))
    with pytest.raises(ModelError, match="does not compute what base and adapter do") as refused:
        merge(run, tmp_path / "merged")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_saved_wrongly_is_refused(
    dtype: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is read again: weights that were lost on the way there are told."""
    run, save = make("llama", dtype), PreTrainedModel.save_pretrained

    def losing(model: Any, target: Path) -> None:
        kept = model.model.layers[0].mlp.down_proj.weight
        whole = kept.data
        kept.data = torch.zeros_like(whole)
        save(model, target)
        kept.data = whole

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", losing)
    with pytest.raises(ModelError, match="does not compute what base and adapter do"):
        merge(run, tmp_path / "merged")


def test_an_adapter_lost_in_rounding_is_told_and_not_refused(make: Make, tmp_path: Path) -> None:
    """In bfloat16 less than half of a small adapter is left, and in float32 all of it; both are correct."""
    small = 5e-3  # weights change by about a thousandth
    assert merge(make("llama", "bfloat16", size=small), tmp_path / "coarse").share < 0.5
    assert merge(make("llama", "float32", size=small), tmp_path / "fine").share == pytest.approx(1, abs=0.01)


def test_an_adapter_that_does_nothing_is_merged(make: Make, tmp_path: Path) -> None:
    """There is no effect to look for, and the base is what comes out."""
    check = merge(make("llama", size=0.0), tmp_path / "merged")
    assert (check.share, check.worst < 1e-5) == (1.0, True)


def test_no_numbers_are_not_the_same() -> None:
    """Logits that are not finite are refused, on both sides."""
    before, after = torch.zeros(4).double(), torch.ones(4).double()
    require_same(after, after, before)
    for broken in (float("nan"), float("inf")):
        with pytest.raises(ModelError):
            require_same(torch.full_like(after, broken), after, before)
        with pytest.raises(ModelError):
            require_same(torch.full_like(after, broken), torch.full_like(after, broken), before)
