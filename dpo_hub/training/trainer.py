"""TRL's `DPOTrainer`, made ready for a recipe and its pairs. The only module that imports TRL."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, cast

from ..errors import ModelError, needing_extra
from ..preferences import PreferencePair
from ..preferences.pairfile import PARTS
from ..recipe import SHARED_PREFIX, TRL, Recipe
from ..runs.run import home
from .checkpoints import problem_of, step_of, written_beside, written_whole
from .forecast import Outlook, forecast
from .memory import is_out_of_memory, keep_freed_memory
from .metrics import evaluation
from .policy import REFERENCE, device, dtype, load_base
from .processes import COUNT, FIRST
from .reference import TOKEN_PARTS, Figures, Tokens, fingerprint, reference_log_probs
from .rehearsal import rehearse
from .shared_prefix import length_sets_angles, shared_prefix
from .shared_prefix.limits import disagreement, unsupported_reason
from .shared_prefix.plan import IGNORED
from .tokens import pairs_at, rows_of

with needing_extra("train"):
    import torch
    from datasets import Dataset, Features, Json, List, concatenate_datasets
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel, PrinterCallback
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.utils import add_fused_lm_head

log = logging.getLogger(__name__)
COMPUTING = ("dpo_hub", "trl", "transformers", "peft", "torch")
"""The packages whose versions may show in a log-probability."""
READ_AT_ONCE, READ_BESIDE = 8, 4
"""Pairs that are read without a backward pass: so many at once, but at most so many times what a step takes. A step
holds the activations of all layers, a reading those of one."""


class PreferenceTrainer(DPOTrainer):
    """TRL's trainer, except that a checkpoint is there whole or not at all, and that measured pairs are told apart."""

    margins: tuple[float, ...] = ()
    """Of each pair that this process measured last; none where the reference was not measured ahead."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute the loss as TRL does, and keep the margins of pairs that are measured, of which TRL logs the mean."""
        self.precompute_ref_logps = "ref_chosen_logps" in inputs
        ask, arguments = super().compute_loss, (model, inputs, return_outputs, num_items_in_batch)
        if model.training or not self.precompute_ref_logps:
            return ask(*arguments)  # type: ignore[no-untyped-call]
        said: list[torch.Tensor] = []  # TRL would hand it out for another forward pass
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
        """Say what is wrong with the checkpoint *folder*, or None."""
        return problem_of(folder, cast(PeftModel, self.model), sharded=self.sharded)

    @property
    def sharded(self) -> bool:
        """Whether each process holds a part of the weights only."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def load_weights(self, checkpoint: Path) -> None:
        """Take the adapter of *checkpoint*, after which there is nothing left to train."""
        self._load_from_checkpoint(str(checkpoint))
        self.state.global_step = step_of(checkpoint)

    def save_checkpoint(self) -> None:
        """Write a checkpoint of the last step, unless there is one."""
        if not (Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}").is_dir():
            self._save_checkpoint(self.model_wrapped, None)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(str(self.args.output_dir))
        target = folder / f"checkpoint-{self.state.global_step}"
        wait = self.accelerator.wait_for_everyone
        with written_whole(target, self.checkpoint_problem, wait) if FIRST else written_beside(target, wait) as aside:
            self.args.output_dir = str(aside)
            try:
                super(DPOTrainer, self)._save_checkpoint(model, trial)  # TRL's own writes a card beside it
            finally:
                self.args.output_dir = str(folder)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the adapter, and neither the tokenizer, a card, nor a pickle of the arguments."""
        folder, policy = Path(str(output_dir or self.args.output_dir)), cast(PeftModel, self.model)
        policy.save_pretrained(
            str(folder),
            save_embedding_layers=False,
            selected_adapters=["default"],
            is_main_process=FIRST,
            state_dict=state_dict,
        )
        if FIRST:
            (folder / "README.md").unlink()


def prepare(
    recipe: Recipe,
    train: list[PreferencePair],
    held_out: list[PreferencePair],
    folder: Path,
    *,
    reference: Path | None = None,
) -> PreferenceTrainer:
    """Load the recipe's base model and make all ready to train an adapter on it; checkpoints go to *folder*.

    The adapter is a fresh one, or goes on from that in *reference*, of which TRL then keeps a copy as the reference.

    Raises:
        ModelError: the base model cannot be loaded, or is too large.
        RecipeError: the processes cannot share its batches evenly.
    """
    arguments = _arguments(recipe.shared_by(COUNT), folder)
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


def settle_engine(trainer: PreferenceTrainer, recipe: Recipe) -> tuple[Recipe, str]:
    """Settle what computes the log-probabilities, and say why where it is not what was asked for."""
    if recipe.engine == TRL:
        return recipe, "trl, as asked"
    policy = cast(PeftModel, trainer.model)
    reason = unsupported_reason(policy)
    if reason is None:
        longest, first, shortest = _telling_pairs(trainer)
        with trainer.accelerator.autocast():
            reason = disagreement(policy, _model_inputs(trainer, [longest, first])) or disagreement(
                policy, _model_inputs(trainer, [shortest]), gradient=True
            )
    if reason is None:
        return recipe, SHARED_PREFIX
    log.warning("the shared prefix cannot serve this model (%s); plain TRL trains it, which is slower", reason)
    return replace(recipe, engine=TRL), f"trl: {reason}"


def _telling_pairs(trainer: PreferenceTrainer) -> tuple[Any, Any, Any]:
    """The longest pair, where windows show, the first, and the shortest, whose gradient costs the least."""
    train, _ = splits(trainer)
    sizes = [sum(map(len, rows_of(pair))) for pair in train]
    return train[sizes.index(max(sizes))], train[0], train[sizes.index(min(sizes))]


def _model_inputs(trainer: PreferenceTrainer, pairs: list[Any]) -> dict[str, Any]:
    """What TRL would ask the model of these pairs."""
    batch = _collated(trainer, pairs)
    labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, IGNORED)
    return batch | {"labels": labels} | ({"output_router_logits": True} if trainer.aux_loss_enabled else {})


def _collated(trainer: PreferenceTrainer, pairs: list[Any]) -> dict[str, Any]:
    return {name: part.to(device()) for name, part in trainer.data_collator(pairs).items()}


def using_engine(trainer: PreferenceTrainer, recipe: Recipe) -> AbstractContextManager[None]:
    """Compute log-probabilities as `settle_engine` decided, for as long as the context lasts."""
    return shared_prefix(cast(PeftModel, trainer.model)) if recipe.engine == SHARED_PREFIX else nullcontext()


def add_head(model: PeftModel) -> None:
    """Have *model* take `fused_lm_head`, as TRL has it in training."""
    add_fused_lm_head(cast(PreTrainedModel, model.get_base_model()))


def can_measure_ahead(trainer: PreferenceTrainer) -> bool:
    """Whether what the reference says of a pair is the same in any batch."""
    return not length_sets_angles(cast(PeftModel, trainer.model).config)


def steps_know_reference(trainer: PreferenceTrainer, recipe: Recipe) -> bool:
    """Whether the reference of the pairs to train on is measured ahead: all of them will be needed."""
    return recipe.epochs >= 1 and can_measure_ahead(trainer)


def settle_memory(trainer: PreferenceTrainer, recipe: Recipe, folder: Path) -> Outlook:
    """Look ahead, and have activations computed again in the backward pass where memory would not hold them."""
    outlook = forecast(trainer, recipe, folder)
    if not outlook.memory.is_tight or not spare_activations(trainer):
        return outlook
    sizes = outlook.memory.activations / 1e9, outlook.memory.free / 1e9
    log.info("activations would take %.1f GB of %.1f GB: they will be computed twice", *sizes)
    return forecast(trainer, recipe, folder)


def spare_activations(trainer: PreferenceTrainer) -> bool:
    """Have activations computed again in the backward pass, where the model can; returns whether it can."""
    policy = cast(PeftModel, trainer.model)
    base = cast(PreTrainedModel, policy.get_base_model())
    if not base.supports_gradient_checkpointing:
        return False
    trainer.args.activation_checkpointing = True
    trainer.args.per_device_eval_batch_size = trainer.args.per_device_train_batch_size  # a step may hold as little now
    policy.enable_input_require_grads()
    base.activation_checkpointing_enable()  # as training does; here for what comes before it
    return True


def rehearse_largest(trainer: PreferenceTrainer, recipe: Recipe, outlook: Outlook) -> None:
    """Take two steps over the longest rows, where the forecast alone should not be relied on.

    Raises:
        torch.OutOfMemoryError: the device's memory does not hold them.
    """
    if trainer.accelerator.device.type == "cuda" or outlook.memory.needs_rehearsal:
        largest = pairs_at(splits(trainer)[0], outlook.batches.largest)
        took = rehearse(trainer, [largest] * 2, reference_known=steps_know_reference(trainer, recipe))
        log.info("two steps over the longest rows: %.1f GB at most, %.2g s each", took.peak / 1e9, took.seconds)


def measure_reference(trainer: PreferenceTrainer, recipe: Recipe) -> None:
    """Give pairs what the reference says of them, so that no look has to ask, nor a step where all pairs are seen."""
    train, held_out = splits(trainer)
    ahead = [train, held_out] if steps_know_reference(trainer, recipe) else [held_out]
    batch_size = trainer.args.per_device_eval_batch_size
    policy = cast(PeftModel, trainer.model).eval()  # as TRL does where it measures ahead; training puts it back

    def measure(pairs: list[Tokens]) -> torch.Tensor:
        batch = _collated(trainer, pairs)
        return torch.stack(trainer.compute_ref_log_probs(policy, batch), 1)  # type: ignore[no-untyped-call]

    measured = reference_log_probs(
        concatenate_datasets(ahead).select_columns(list(TOKEN_PARTS)),
        measure,
        key=[
            fingerprint(cast(PreTrainedModel, policy.get_base_model()), REFERENCE),
            *(f"{package} {version(package)}" for package in COMPUTING),
            f"{recipe.engine} {recipe.max_length} {batch_size} {dtype()} {device().type}",
        ],
        folder=home() / "cache" / "reference",
        batch_size=batch_size,
    )
    trainer.eval_dataset = _with_reference(held_out, measured[-len(held_out) :])
    if len(measured) > len(held_out):
        trainer.train_dataset = _with_reference(train, measured[: len(train)])


def _with_reference(pairs: Dataset, measured: Figures) -> Dataset:
    chosen, rejected = measured.T
    return pairs.add_column("ref_chosen_logps", chosen).add_column("ref_rejected_logps", rejected)


def evaluate(trainer: PreferenceTrainer, *, most: int | None = None) -> dict[str, float]:
    """Measure the held-out pairs, or the first *most* of them, each of the same weight. Their margins stay with it.

    TRL averages over batches. Batches of different sizes are therefore measured apart and weighed by their pairs.
    """
    trainer.margins = ()
    _, every = splits(trainer)
    count, batch_size = min(most or len(every), len(every)), trainer.args.per_device_eval_batch_size
    logs = []
    try:
        for pairs, size, weight in even_parts(count, batch_size, COUNT):
            trainer.eval_dataset, trainer.args.per_device_eval_batch_size = every.select(pairs), size
            logs.append((weight, trainer.evaluate()))
    finally:
        trainer.eval_dataset, trainer.args.per_device_eval_batch_size = every, batch_size
    keys = logs[0][1].keys() & logs[-1][1].keys()
    return evaluation({key: sum(weight * log[key] for weight, log in logs) / count for key in keys}, count)


def even_parts(count: int, batch_size: int, processes: int) -> Iterator[tuple[list[int], int, int]]:
    """Part *count* pairs so that in each part all batches of all processes are of one size.

    Yields the pairs of a part, the size of its batches, and how many pairs it stands for: what is left at last is
    measured by every process, one by one.
    """
    full = count - count % (batch_size * processes)
    each = (count - full) // processes
    shared = full + each * processes
    if full:
        yield [*range(full)], batch_size, full
    if each:
        yield [*range(full, shared)], each, shared - full
    for pair in range(shared, count):
        yield [pair] * processes, 1, 1


def count_lengths(trainer: PreferenceTrainer, pairs: Mapping[str, Any], recipe: Recipe) -> dict[str, dict[str, int]]:
    """Count the pairs that `max_length` takes: whole ones that TRL dropped, and those whose replies it will cut.

    *pairs* says how many there were of `train` and `held_out`.

    Raises:
        ModelError: it leaves nothing to train on or nothing to measure with.
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
    """The pairs as TRL takes them. Tools and their calls go as JSON: Arrow would give each the arguments of all."""
    rows = [pair.messages for pair in pairs]
    if all(row.keys() == set(PARTS) and all(m.keys() == {"role", "content"} for m in _turns(row)) for row in rows):
        return Dataset.from_list(rows)
    features = Features(dict.fromkeys(PARTS, List(Json())) | {"tools": Json(), "chat_template_kwargs": Json()})
    return Dataset.from_list([{"tools": None, "chat_template_kwargs": {}} | row for row in rows], features=features)


def _turns(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return chain.from_iterable(row[part] for part in PARTS)
