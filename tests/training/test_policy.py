from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model, PreTrainedTokenizerFast

from dpo_hub.errors import ModelError
from dpo_hub.runs.base_model import EMBEDDED
from dpo_hub.training.policy import PLAIN_TEMPLATE, load_base


def test_the_demo_model_is_small_and_loads() -> None:
    """The embedded model takes at most 12 MB on disk and has 2 to 6 million parameters."""
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) <= 12e6
    model, tokenizer = load_base("demo")
    assert 2e6 < model.num_parameters() < 6e6
    assert tokenizer.chat_template


def test_a_folder_without_a_chat_template_gets_a_plain_one(tmp_path: Path) -> None:
    """A base model from a folder works the same way, even one that was never made to chat."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(EMBEDDED / "tokenizer.json"), eos_token="<|end|>")
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=len(tokenizer))).save_pretrained(tmp_path)
    model, loaded = load_base(str(tmp_path))
    assert model.config.model_type == "gpt2"
    assert (loaded.chat_template, loaded.pad_token) == (PLAIN_TEMPLATE, "<|end|>")
    text = loaded.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False)
    assert text == "User: Hi\n\nAssistant: "


def test_a_models_own_code_is_not_run(tmp_path: Path) -> None:
    """A folder that asks for its own code is refused, and the code is not executed."""
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "m.C", "AutoModelForCausalLM": "m.M"}})
    )
    (tmp_path / "m.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelError):
        load_base(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_a_model_without_a_head_is_refused(tmp_path: Path) -> None:
    """Weights that would have to be made up are told, not trained."""
    GPT2Model(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=50, tie_word_embeddings=False)).save_pretrained(
        tmp_path
    )
    load_base("demo")[1].save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"has no weights for lm_head\.weight"):
        load_base(str(tmp_path))


def test_a_model_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that neither the disk nor the Hub knows, and an empty folder, each get a sentence with what to do."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"no/such-model cannot be loaded: .*'demo' is the one that needs no download"):
        load_base("no/such-model")
    with pytest.raises(ModelError, match="holds no model"):
        load_base(str(tmp_path))


def test_an_adapter_does_not_lead_to_another_folder(tmp_path: Path) -> None:
    """An adapter's repository may name any folder as its base: it is refused before that is looked at."""
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(EMBEDDED)}), encoding="utf-8"
    )
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((EMBEDDED / file).read_bytes())
    with pytest.raises(ModelError, match="is an adapter, and not a base model"):
        load_base(str(tmp_path))
