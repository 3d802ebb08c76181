"""Prepares TRL's `DPOTrainer` for a recipe and its pairs. The only module that imports TRL."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, cast

from ..errors import ModelError, needing_extra
from ..preferences import PreferencePair
from ..preferences.pairfile import PART_ROLES
from ..recipe import Recipe
from .checkpoints import atomic_checkpoint, joined_checkpoint, problem_of, step_of
from .memory import is_out_of_memory, keep_freed_memory
from .policy import device, load_base
from .processes import IS_MAIN_PROCESS, WORLD_SIZE
from .tokens import rows_of

with needing_extra("train"):
    import torch
    from datasets import Dataset, Features, Json, List
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel, PrinterCallback
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.utils import add_fused_lm_head

log = logging.getLogger(__name__)
READ_AT_ONCE, READ_BESIDE = 8, 4
"""The batch size without a backward pass: the first number, but at most the second times a step's batch size, and never
less than that. A training step holds the activations of all layers; a forward pass alone, those of one."""


class PreferenceTrainer(DPOTrainer):
    """TRL's trainer, but with checkpoints that are complete or absent, and with the margin of each evaluated pair."""

    margins: tuple[float, ...] = ()
    """One per pair that this process evaluated last; empty if the reference was not measured in advance."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute the loss as TRL does, and keep the margin of each evaluated pair; TRL logs only their mean."""
        self.precompute_ref_logps = "ref_chosen_logps" in inputs
        ask, arguments = super().compute_loss, (model, inputs, return_outputs, num_items_in_batch)
        if model.training or not self.precompute_ref_logps:
            return ask(*arguments)  # type: ignore[no-untyped-call]
        said: list[torch.Tensor] = []  # TRL would return it only after another forward pass
        hook = model.register_forward_hook(lambda _model, _inputs, outputs: said.append(outputs.log_probs))
        try:
            loss = ask(*arguments)  # type: ignore[no-untyped-call]
        finally:
            hook.remove()
        chosen, rejected = said[0].sum(1).chunk(2)
        of_reference = inputs["ref_chosen_logps"] - inputs["ref_rejected_logps"]
        self.margins += tuple((self.beta * (chosen - rejected - of_reference)).tolist())
        return loss

    def checkpoint_problem(self, folder: Path) -> str | None:
        """Return what is wrong with the checkpoint *folder*, or None."""
        return problem_of(folder, cast(PeftModel, self.model), sharded=self.sharded)

    @property
    def sharded(self) -> bool:
        """Whether each process holds only a part of the weights."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def load_weights(self, checkpoint: Path) -> None:
        """Load the adapter of *checkpoint*, written after the last step."""
        self._load_from_checkpoint(str(checkpoint))
        self.state.global_step = step_of(checkpoint)

    def save_checkpoint(self) -> None:
        """Write a checkpoint of the last step, unless it exists."""
        if not (Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}").is_dir():
            self._save_checkpoint(self.model_wrapped, None)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(str(self.args.output_dir))
        target = folder / f"checkpoint-{self.state.global_step}"
        wait = self.accelerator.wait_for_everyone
        with (
            atomic_checkpoint(target, self.checkpoint_problem, wait)
            if IS_MAIN_PROCESS
            else joined_checkpoint(target, wait) as aside
        ):
            self.args.output_dir = str(aside)
            try:
                super(DPOTrainer, self)._save_checkpoint(model, trial)  # TRL's own method also writes a card
            finally:
                self.args.output_dir = str(folder)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the adapter, but no tokenizer, card or pickled arguments."""
        folder, policy = Path(str(output_dir or self.args.output_dir)), cast(PeftModel, self.model)
        policy.save_pretrained(
            str(folder),
            save_embedding_layers=False,
            selected_adapters=["default"],
            is_main_process=IS_MAIN_PROCESS,
            state_dict=state_dict,
        )
        if IS_MAIN_PROCESS:
            (folder / "README.md").unlink()


def prepare(
    recipe: Recipe,
    train: list[PreferencePair],
    held_out: list[PreferencePair],
    folder: Path,
    *,
    reference: Path | None = None,
) -> PreferenceTrainer:
    """Load the recipe's base model and set up a trainer for an adapter on it; checkpoints go to *folder*.

    The adapter is new, or starts from the one in *reference*, which TRL then also copies as the reference model.

    Raises:
        ModelError: the base model cannot be loaded, or is too large.
        RecipeError: the batches cannot be divided evenly among the processes.
    """
    arguments = _arguments(recipe.per_process(WORLD_SIZE), folder)
    if device().type == "cpu":
        keep_freed_memory()
    try:
        model, tokenizer = load_base(recipe.model, load_in_4bit=recipe.load_in_4bit)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            "The base model alone is too large for the device's memory. Take a smaller one, or --load-in-4bit."
        ) from error
    trainer = PreferenceTrainer(
        model=PeftModel.from_pretrained(model, reference, is_trainable=True) if reference else model,
        args=arguments,
        train_dataset=_dataset(train),
        eval_dataset=_dataset(held_out),
        processing_class=tokenizer,
        peft_config=None if reference else _lora(recipe),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def splits(trainer: PreferenceTrainer) -> tuple[Dataset, Dataset]:
    """The tokenised pairs to train on and the held-out ones."""
    return cast(Dataset, trainer.train_dataset), cast(Dataset, trainer.eval_dataset)


def collated(trainer: PreferenceTrainer, pairs: list[Any]) -> dict[str, Any]:
    return {name: part.to(device()) for name, part in trainer.data_collator(pairs).items()}


def add_head(model: PeftModel) -> None:
    """Make *model* accept `fused_lm_head`, as TRL does for training."""
    add_fused_lm_head(cast(PreTrainedModel, model.get_base_model()))


def count_lengths(trainer: PreferenceTrainer, pairs: Mapping[str, Any], recipe: Recipe) -> dict[str, dict[str, int]]:
    """Count the pairs that `max_length` affects: those that TRL dropped, and those whose replies it will truncate.

    *pairs* gives the original numbers of `train` and `held_out` pairs.

    Raises:
        ModelError: it leaves nothing to train on or nothing to evaluate with.
    """
    counts: dict[str, dict[str, int]] = {"dropped": {}, "cut": {}}
    for split, kept in zip(("train", "held_out"), splits(trainer), strict=True):
        asked = pairs[split]
        if not len(kept):
            raise ModelError(
                f"max_length, {recipe.max_length} tokens, is too short for all {asked} {split.replace('_', '-')} "
                "prompts. Raise --max-length."
            )
        counts["dropped"][split] = asked - len(kept)
        counts["cut"][split] = sum(max(map(len, rows_of(pair))) > recipe.max_length for pair in kept)
    if any(sum(by_split.values()) for by_split in counts.values()):
        log.warning(
            "max_length %d drops %d pairs whose prompt alone fills it and cuts replies of %d; raise --max-length",
            recipe.max_length,
            sum(counts["dropped"].values()),
            sum(counts["cut"].values()),
        )
    return counts


def _arguments(recipe: Recipe, folder: Path) -> DPOConfig:
    cuda = device().type == "cuda"
    with_sft = recipe.sft_weight > 0
    return DPOConfig(
        output_dir=str(folder),
        beta=recipe.beta,
        loss_type=[recipe.loss, "sft"] if with_sft else [recipe.loss],
        loss_weights=[1.0, recipe.sft_weight] if with_sft else [1.0],
        label_smoothing=recipe.label_smoothing,
        f_divergence_type=recipe.f_divergence,
        f_alpha_divergence_coef=recipe.f_alpha,
        discopop_tau=recipe.discopop_tau,
        use_weighting=recipe.use_weighting,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0.1,
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=max(recipe.batch_size, min(READ_AT_ONCE, READ_BESIDE * recipe.batch_size)),
        gradient_accumulation_steps=recipe.accumulation,
        max_length=recipe.max_length,
        seed=recipe.seed,
        bf16=cuda,
        use_cpu=not cuda,
        activation_checkpointing=False,
        save_strategy="no",
        ddp_find_unused_parameters=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )


def _lora(recipe: Recipe) -> LoraConfig:
    return LoraConfig(r=recipe.lora_r, lora_alpha=recipe.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")


def _dataset(pairs: list[PreferencePair]) -> Dataset:
    """The pairs in TRL's format. Tools and their calls become JSON: Arrow would give each the arguments of all."""
    rows = [pair.messages for pair in pairs]
    if all(row.keys() == set(PART_ROLES) and all(m.keys() == {"role", "content"} for m in _turns(row)) for row in rows):
        return Dataset.from_list(rows)
    features = Features(dict.fromkeys(PART_ROLES, List(Json())) | {"tools": Json(), "chat_template_kwargs": Json()})
    return Dataset.from_list([{"tools": None, "chat_template_kwargs": {}} | row for row in rows], features=features)


def _turns(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return chain.from_iterable(row[part] for part in PART_ROLES)
