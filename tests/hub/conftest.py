"""A tiny finished run, a loopback Hub, and the command line in a process of its own that knows only that Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dpo_hub import PreferencePair, Preferences, Recipe, Run
from dpo_hub.hub.card import render_card
from dpo_hub.runs.state import State

from .loopback import Commit, Hub, Repo, serving

ADA, ADA_READS, BOB = "hf_canaryOfAda", "hf_canaryOfAdaReading", "hf_canaryOfBob"
BASE = "ada/tiny-base"
BASE_CARD = "---\nlicense: other\nlicense_name: tiny\nlicense_link: LICENSE\nlanguage: en\n---\n# Tiny\n"
WORDS = ["<pad>", "<eos>", "<unk>", "user", "assistant", "Hello", "!", "yes", "no", "maybe", "why", "because"]
TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}assistant "
EVALUATION = {"pairs": 2, "loss": 0.5, "margin": 0.75, "reward_accuracy": 1.0}
STEP = {
    "loss": 0.7, "margin": 0.0, "reward_accuracy": 0.5, "chosen_reward": 0.0, "rejected_reward": 0.0,
    "chosen_logp": -9.0, "rejected_logp": -9.0, "grad_norm": 1.0,
}  # fmt: skip
VERSIONS = {"Python": "3.12.1", "dpo_hub": "0.1.0", "torch": "2.13.0", "peft": "0.21.0"}
SAMPLE = {"prompt": "why", "chosen": "because", "before": "no", "after": "because"}


def pair(number: int) -> PreferencePair:
    ask, good, bad = (
        [{"role": role, "content": f"{text} {number}"}]
        for role, text in (("user", "why"), ("assistant", "because"), ("assistant", "no"))
    )
    return PreferencePair(ask, good, bad, number)


def measured_run(
    home: Path, *, model: str = BASE, source: str = "tone.csv", sample: dict[str, str] | None = None
) -> Run:
    """Make a run as the worker leaves it before it writes the card, except that there is no adapter."""
    preferences = Preferences(source, "prompt, chosen, rejected", [pair(n) for n in range(10)], {"no chosen": [3, 7]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPO_HUB_HOME", str(home))
        run = Run.create(preferences, Recipe(model=model, held_out=0.2))
    run.write("report.json", json.dumps(run.report | {"versions": VERSIONS}))
    run.append_metrics({"step": 1, **STEP})
    run.write("evaluation.json", json.dumps(EVALUATION))
    run.write("samples.jsonl", json.dumps(sample or SAMPLE) + "\n")
    return run


def finish(run: Run) -> Run:
    run.write("README.md", render_card(run))
    run.set_state(State("finished"))
    return run


@dataclass(frozen=True)
class Tiny:
    """A random base model in a folder, a finished run with an adapter to it, and the adapter's logits."""

    base: Path
    run: Run
    logits: Path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    home = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    size: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    base = LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), pad_token_id=0, eos_token_id=1, bos_token_id=1, **size))
    base.save_pretrained(home / "base")
    _tokenizer().save_pretrained(home / "base")
    (home / "base" / "README.md").write_text(BASE_CARD, encoding="utf-8")
    run = measured_run(home)
    lora = LoraConfig(r=4, target_modules=["k_proj", "q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    with warnings.catch_warnings():
        # PEFT asks Transformers for a name that it is about to drop.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model = get_peft_model(base, lora).eval()
    model.peft_config["default"].base_model_name_or_path = BASE
    model.save_pretrained(str(run.adapter), save_embedding_layers=False)
    _tokenizer().save_pretrained(run.adapter)
    with torch.inference_mode():
        save_file({"logits": model(torch.arange(len(WORDS))[None]).logits}, home / "logits.safetensors")
    return Tiny(home / "base", finish(run), home / "logits.safetensors")


def _tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture
def hub(tiny: Tiny) -> Iterator[Hub]:
    """A Hub that knows Ada, who has the base model there, and Bob."""
    base = Commit("base", {path.name: path.read_bytes() for path in tiny.base.iterdir()})
    knows = Hub({ADA: "ada", ADA_READS: "ada", BOB: "bob"}, frozenset({ADA_READS}), {BASE: Repo(False, [base])})
    with serving(knows):
        yield knows


@dataclass(frozen=True)
class Python:
    """Runs Python in a process of its own, with nothing of the Hub's settings on this machine."""

    endpoint: str
    home: Path

    def __call__(self, *arguments: str | Path, token: str = "") -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        hub = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(self.home), "HF_HUB_DISABLE_XET": "1"}
        asked = [sys.executable, *map(str, arguments)]
        environment = kept | hub | ({"HF_TOKEN": token} if token else {})
        return subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=300, check=False)

    def publish(self, run: Run, repo_id: str, *more: str, token: str = ADA) -> subprocess.CompletedProcess[str]:
        """Publish *run*; the adapters are compared with `--compare` only, which takes seconds."""
        return self("-m", "dpo_hub", "publish", run.path, repo_id, "--token", token, "--no-compare", *more)


@pytest.fixture
def python(hub: Hub, tmp_path: Path) -> Python:
    return Python(hub.endpoint, tmp_path / "hf")
