"""What TRL's trainer makes of it, and what of TRL this stands on. When TRL is upgraded, these say what moved."""

from __future__ import annotations

import inspect
import json
import socket
import subprocess
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AttentionInterface, PreTrainedTokenizerFast, Trainer
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import FusedCausalLMOutput

from dpo_hub.training.shared_prefix import PerToken, shared_prefix

from .models import EXPERTS, VOCABULARY, Pair, random_pairs, tiny_model

PAIRS = random_pairs(*[(n % 7 + 2, n % 5 + 1, n % 4 + 2) for n in range(14)])


def words() -> PreTrainedTokenizerFast:
    """A tokenizer to whom each word is a token."""
    names = {"<pad>": 0, "<bos>": 1, "<eos>": 2} | {f"w{token}": token for token in range(3, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def make_trainer(folder: Path, pairs: Sequence[Pair] = PAIRS, model: Any = None, **settings: Any) -> DPOTrainer:
    """TRL's trainer over tokens given as words, with a leftover batch."""
    rows = [
        dict(zip(("prompt", "chosen", "rejected"), (" ".join(f"w{t}" for t in part) for part in pair), strict=True))
        for pair in pairs
    ]
    defaults: dict[str, Any] = {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "num_train_epochs": 1}
    defaults["activation_checkpointing"] = False
    args = DPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **defaults | settings,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PEFT notes of experts, and TRL of the way it tokenizes
        model = model or tiny_model("llama")
        torch.manual_seed(0)
        return DPOTrainer(
            model=model,
            args=args,
            train_dataset=Dataset.from_list(rows),
            eval_dataset=Dataset.from_list(rows[:5]),
            processing_class=words(),
            peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
        )


def history(trainer: DPOTrainer, *, shared: bool) -> list[dict[str, float]]:
    """Train and evaluate; return what was logged, but for times."""
    with shared_prefix(trainer.model) if shared else nullcontext():
        trainer.train()
        trainer.evaluate()
    timed = ("runtime", "per_second")
    return [{k: v for k, v in log.items() if not any(t in k for t in timed)} for log in trainer.state.log_history]


ALL_BUT_SORTING = ["sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "apo_zero"]
ALL_BUT_SORTING += ["apo_down", "discopop", "sigmoid_norm"]
LOSSES: dict[str, dict[str, Any]] = {
    "all losses but two": {"loss_type": ALL_BUT_SORTING, "label_smoothing": 0.1},
    "weighted (WPO)": {"loss_type": ["sigmoid", "ipo"], "use_weighting": True},
    "losses that sort": {"loss_type": ["aot", "aot_unpaired"]},
    "length-desensitised": {"loss_type": ["sigmoid"], "ld_alpha": 0.3},
    "forward KL": {"loss_type": ["sigmoid"], "f_divergence_type": "forward_kl"},
    "Jensen-Shannon": {"loss_type": ["sigmoid"], "f_divergence_type": "js_divergence"},
    "alpha divergence": {"loss_type": ["ipo"], "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.5},
    "reference measured before": {"loss_type": ["sigmoid"], "precompute_ref_log_probs": True},
    "accumulated, cut": {"loss_type": ["sigmoid", "sft"], "gradient_accumulation_steps": 2, "max_length": 9},
    "computed twice": {"loss_type": ["sigmoid"], "activation_checkpointing": True},
}


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_:FutureWarning")  # TRL calls transformers' old names
@pytest.mark.parametrize("kind", LOSSES)
def test_a_training_run_logs_the_same(kind: str, tmp_path: Path) -> None:
    """Each loss, each divergence, with and without the reference at hand: every logged figure is TRL's."""
    usual, ours = (history(make_trainer(tmp_path, **LOSSES[kind]), shared=shared) for shared in (False, True))
    assert_same_history(usual, ours)


def assert_same_history(usual: list[dict[str, float]], ours: list[dict[str, float]]) -> None:
    assert len(usual) == len(ours) > 2
    for log in (usual[0], ours[0]):
        log.pop("rewards/accuracies")  # of rewards that are 0 but for rounding
    for one, other in zip(usual, ours, strict=True):
        assert other == pytest.approx(one, abs=1e-3, rel=1e-3)
    rewards = [log["rewards/margins"] for log in usual if "rewards/margins" in log]
    assert rewards[0] == pytest.approx(0, abs=1e-5)
    assert abs(rewards[-1]) > 1e-3, "nothing was learned, so the comparison would be empty"


def test_experts_are_balanced_the_same(tmp_path: Path) -> None:
    """A mixture of experts logs the same auxiliary loss, which counts each row's tokens."""

    def run(*, shared: bool) -> list[dict[str, float]]:
        return history(make_trainer(tmp_path, model=tiny_model("mixtral", **EXPERTS)), shared=shared)

    usual, ours = run(shared=False), run(shared=True)
    assert usual[0]["aux_loss"] > 0.5
    assert_same_history(usual, ours)


WORKER = """
import json, os, sys
from pathlib import Path
from tests.training.shared_prefix.test_trl import history, make_trainer
trainer = make_trainer(Path(sys.argv[1]), per_device_train_batch_size=int(sys.argv[2]), loss_type=["sigmoid", "ipo"])
trainer.train_dataset = trainer.train_dataset.select(range(12))
logs = history(trainer, shared=True)
if trainer.accelerator.is_main_process:
    print("@" + json.dumps([log["loss"] for log in logs if "loss" in log]), flush=True)
trainer.accelerator.end_training()
os._exit(0)  # gloo's threads now and then abort Python's own way out
"""


@pytest.mark.full
def test_two_processes_give_the_same_as_one(tmp_path: Path) -> None:
    """DDP over gloo, half the batch each: the losses of one process with the whole batch."""
    (tmp_path / "worker.py").write_text(WORKER)
    one = _losses([sys.executable], tmp_path, "4")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    two = _losses(launch, tmp_path, "2")
    assert len(one) == 3
    assert two == pytest.approx(one, abs=1e-4)


def _losses(launch: list[str], folder: Path, batch_size: str) -> list[float]:
    repository = Path(__file__).parents[3]
    done = subprocess.run(
        [*launch, str(folder / "worker.py"), str(folder), batch_size],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(repository), "PATH": "/usr/bin:/bin", "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("@")]
    assert done.returncode == 0, done.stderr[-3000:]
    assert told, done.stdout
    found: list[float] = json.loads(told[0][1:])
    return found


class CalledError(Exception):
    """Carries what the model was called with."""


def test_trl_calls_its_model_as_we_expect(tmp_path: Path) -> None:
    """`_compute_loss` asks for the fused head of a batch [chosen; rejected], by name."""
    trainer = make_trainer(tmp_path)
    base = trainer.model.get_base_model()

    def forward(*args: Any, **kwargs: Any) -> None:
        assert not args, "TRL passes tensors by position now; shared_prefix/__init__.py takes them by name"
        raise CalledError(kwargs)

    base.forward = forward
    with pytest.raises(CalledError) as caught:
        trainer.train()
    asked = caught.value.args[0]
    moved = "the call in DPOTrainer._compute_loss has changed; shared_prefix/__init__.py answers it"
    # PEFT adds the two that are None
    given = {name for name, value in asked.items() if value is not None}
    assert given - {"return_dict"} == {"input_ids", "attention_mask", "use_cache", "labels", "fused_lm_head"}, moved
    ids, labels = asked["input_ids"], asked["labels"]
    assert ids.shape == labels.shape == asked["attention_mask"].shape, moved
    assert len(ids) == 8, "a batch of 4 pairs is no longer 4 chosen rows above 4 rejected ones"
    assert asked["attention_mask"][:, 0].all(), "the collator no longer pads on the right"
    assert ((labels == ids) | (labels == -100)).all(), "labels are no longer the tokens themselves"


def test_trl_reads_what_we_return() -> None:
    """The fields of TRL's own output that its DPO loss reads are in ours."""
    source = inspect.getsource(DPOTrainer._compute_loss) + inspect.getsource(DPOTrainer.compute_ref_log_probs)
    theirs = {field.name for field in fields(FusedCausalLMOutput)}
    read = {name for name in theirs if f"outputs.{name}" in source or f").{name}" in source}
    ours = {field.name for field in fields(PerToken)}
    assert "log_probs" in read
    assert read <= ours, f"TRL reads {read - ours} of its fused head, which PerToken does not have"


def test_what_the_trainer_is_asked_for_is_there(tmp_path: Path) -> None:
    """training/trainer.py reads and sets these of DPOTrainer; the reference columns are those its collator knows."""
    trainer = make_trainer(tmp_path)
    assert trainer.precompute_ref_logps is False, "training/trainer.py sets DPOTrainer.precompute_ref_logps"
    assert list(inspect.signature(trainer.compute_ref_log_probs).parameters) == ["model", "inputs"]
    assert {"_metrics", "_total_train_tokens"} <= vars(trainer).keys(), "training/rehearsal.py puts these back"
    saving = {
        name: list(inspect.signature(getattr(Trainer, name)).parameters) for name in ("_save", "_save_checkpoint")
    }
    assert saving == {"_save": ["self", "output_dir", "state_dict"], "_save_checkpoint": ["self", "model", "trial"]}
    assert DPOTrainer._save_checkpoint is not Trainer._save_checkpoint, "there is no card of TRL's to be left out now"
    row = trainer.train_dataset[0] | {"ref_chosen_logps": -1.5, "ref_rejected_logps": -2.5}
    batch = trainer.data_collator([row])
    assert set(batch) == {"input_ids", "attention_mask", "completion_mask", "ref_chosen_logps", "ref_rejected_logps"}
    assert batch["ref_rejected_logps"].tolist() == [-2.5]


def test_what_transformers_is_asked_for_is_there() -> None:
    """Attention is chosen by the configuration at each call, from an interface that takes new functions."""
    model = tiny_model("llama")
    assert isinstance(model.config._attn_implementation, str), "shared_prefix sets config._attn_implementation"
    assert {type(model)._supports_attention_backend, type(model)._supports_flash_attn} == {True}
    assert callable(AttentionInterface.register)
