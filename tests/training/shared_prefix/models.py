"""Tiny random models of the architectures that people train, and batches as TRL's collator makes them."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 97
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.5}
WINDOWS = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
SERVED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, tied head": ("llama", {"tie_word_embeddings": True}),
    "llama, dynamic angles": (
        "llama",
        {"max_position_embeddings": 8, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    ),
    "mistral, window": ("mistral", {"sliding_window": 6}),
    "qwen2": ("qwen2", {}),
    "qwen2, some windows": ("qwen2", WINDOWS | {"use_sliding_window": True}),
    "qwen3": ("qwen3", {}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", WINDOWS | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
    "gemma3": ("gemma3_text", WINDOWS),
    "phi": ("phi", {}),
    "phi3": ("phi3", {}),
    "olmo": ("olmo", {}),
    "olmo2": ("olmo2", {}),
    "smollm3": ("smollm3", {}),
    "granite": ("granite", {"logits_scaling": 3.0, "attention_multiplier": 0.2}),
    "cohere": ("cohere", {"logit_scale": 0.25}),
    "gpt2": ("gpt2", {"n_inner": 48}),
    "gpt_neox": ("gpt_neox", {}),
    "opt": ("opt", {"word_embed_proj_dim": 32, "ffn_dim": 48}),
    "mixtral": ("mixtral", EXPERTS),
    "qwen2_moe": ("qwen2_moe", EXPERTS | {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 24}),
    "qwen3_moe": ("qwen3_moe", EXPERTS | {"moe_intermediate_size": 24}),
    "olmoe": ("olmoe", EXPERTS),
}


def tiny_model(name: str, **settings: Any) -> Any:
    """A random model of the architecture *name* (of transformers), in float32, in training mode without dropout."""
    torch.manual_seed(0)
    dropouts = dict.fromkeys(
        ("attn_pdrop", "embd_pdrop", "resid_pdrop", "dropout", "attention_dropout", "hidden_dropout", "embd_dropout"),
        0.0,
    )
    config = AutoConfig.for_model(name, **COMMON | dropouts | settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.dim() > 1:  # freshly made weights are so small that all predictions are alike and errors hide
            torch.nn.init.normal_(parameter, std=0.4)
    return model


def with_adapter(model: Any, **settings: Any) -> PeftModel:
    """The model with a LoRA adapter that changes something."""
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PEFT notes of GPT-2's transposed weights and of experts
        policy = get_peft_model(model, lora)
    for parameter_name, parameter in policy.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.1)
    return policy.train()


Pair = tuple[list[int], list[int], list[int]]


def random_pairs(*lengths: tuple[int, int, int], seed: int = 0) -> list[Pair]:
    """Pairs of random tokens with prompt, chosen and rejected of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [
        tuple(torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in pair)  # type: ignore[misc]
        for pair in lengths
    ]


def collate(pairs: list[Pair], max_length: int | None = None) -> dict[str, Tensor]:
    """As TRL's collator: chosen rows above rejected ones, cut at the end, padded on the right."""
    rows = [(prompt, reply) for at in (1, 2) for prompt, reply in ((pair[0], pair[at]) for pair in pairs)]
    width = max(min(len(prompt) + len(reply), max_length or 10**9) for prompt, reply in rows)
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, (prompt, reply) in enumerate(rows):
        tokens = torch.tensor((prompt + reply)[:width])
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        labels[row, len(prompt) : len(tokens)] = tokens[len(prompt) :]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
