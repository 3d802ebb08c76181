"""DPO with LoRA on TRL's `DPOTrainer`. The only module that imports TRL."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import ModelError, needing_extra, telling_disk_full
from ..preferences import PreferencePair
from ..recipe import Recipe
from ..run import Run
from .metrics import StepMetrics, evaluation, step_metrics
from .policy import device, load_base

with needing_extra("train"):
    from datasets import Dataset
    from datasets.utils import disable_progress_bars
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
    from trl import DPOConfig, DPOTrainer

log = logging.getLogger(__name__)
disable_progress_bars()

OnStep = Callable[[StepMetrics, int], None]
"""Called after each step with what it measured and how many steps there are in all."""


@dataclass(frozen=True)
class Trained:
    """What training leaves in memory: the policy (adapter on), its tokenizer, and what held-out pairs say of it."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    evaluation: dict[str, float]


def train(run: Run, on_step: OnStep | None = None) -> Trained:
    """Train the run's recipe on its pairs, log each step to the run, save the adapter, and measure held-out pairs.

    Raises:
        ModelError: the base model cannot be loaded, or no training pair fits into `max_length`.
        DiskFullError: there is no room for what is written.
    """
    recipe = run.recipe
    model, tokenizer = load_base(recipe.model)
    train_pairs, held_out = run.pairs("train"), run.pairs("held_out")
    with telling_disk_full(run.path):
        trainer = DPOTrainer(
            model=model,
            args=_arguments(recipe, run.path / "checkpoints"),
            train_dataset=_dataset(train_pairs),
            eval_dataset=_dataset(held_out),
            processing_class=tokenizer,
            peft_config=_lora(recipe),
            callbacks=[_Recorder(run, on_step)],
        )
        trainer.remove_callback(PrinterCallback)
        _tell_dropped(trainer.train_dataset, train_pairs, recipe)
        measured_on = _tell_dropped(trainer.eval_dataset, held_out, recipe)
        trainer.train()
        policy = cast(PeftModel, trainer.model)
        _save_adapter(policy, tokenizer, recipe, run.adapter)
        measured = evaluation(trainer.evaluate(), measured_on)
    return Trained(policy, tokenizer, measured)


def _arguments(recipe: Recipe, folder: Path) -> DPOConfig:
    cuda = device().type == "cuda"
    with_sft = recipe.sft_weight > 0
    return DPOConfig(
        output_dir=str(folder),
        beta=recipe.beta,
        loss_type=[recipe.loss, "sft"] if with_sft else [recipe.loss],
        loss_weights=[1.0, recipe.sft_weight] if with_sft else [1.0],
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0.1,
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.accumulation,
        max_length=recipe.max_length,
        seed=recipe.seed,
        bf16=cuda,
        use_cpu=not cuda,
        gradient_checkpointing=cuda,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )


def _lora(recipe: Recipe) -> LoraConfig:
    return LoraConfig(r=recipe.lora_r, lora_alpha=recipe.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")


def _dataset(pairs: list[PreferencePair]) -> Dataset:
    return Dataset.from_list([pair.messages for pair in pairs])


def _tell_dropped(kept: Any, pairs: list[PreferencePair], recipe: Recipe) -> int:
    """Return how many pairs TRL kept, and say so where it dropped some: those whose prompt alone fills `max_length`."""
    if not len(kept):
        raise ModelError(f"No prompt fits into max_length, {recipe.max_length} tokens. Raise --max-length.")
    if dropped := len(pairs) - len(kept):
        log.warning("%d of %d prompts fill max_length, %d, and are left out", dropped, len(pairs), recipe.max_length)
    return len(kept)


def _save_adapter(model: PeftModel, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, folder: Path) -> None:
    """Save adapter and tokenizer to *folder*: all or nothing, the same bytes each time, no local path in them."""
    config = cast(LoraConfig, model.peft_config["default"])
    config.base_model_name_or_path = recipe.model
    config.target_modules = sorted(config.target_modules or ())
    aside = folder.with_name(".adapter")
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(str(aside), save_embedding_layers=False)
    tokenizer.save_pretrained(aside)
    (aside / "README.md").unlink()
    aside.rename(folder)


class _Recorder(TrainerCallback):
    """Writes each step to the run and tells whoever watches."""

    def __init__(self, run: Run, on_step: OnStep | None) -> None:
        self.run, self.on_step = run, on_step

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run.claim(steps=state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        metrics = step_metrics(state.global_step, state.epoch, kwargs["logs"])
        if metrics:
            self.run.append_metrics(asdict(metrics))
            if self.on_step:
                self.on_step(metrics, state.max_steps)
