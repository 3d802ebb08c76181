"""DPO with LoRA on TRL's `DPOTrainer`. The only module that imports TRL."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, cast

from ..errors import ModelError, needing_extra, telling_disk_full
from ..preferences import PreferencePair
from ..preferences.pairfile import PARTS
from ..recipe import SHARED_PREFIX, TRL, Recipe
from ..run import Run, home
from .forecast import Outlook, forecast
from .memory import keep_freed_memory
from .metrics import StepMetrics, evaluation, step_metrics
from .policy import device, dtype, load_base, telling_model_limits
from .preflight import require_room
from .reference import TOKEN_PARTS, Figures, Tokens, fingerprint, reference_log_probs
from .shared_prefix import length_sets_angles, shared_prefix
from .shared_prefix.limits import disagreement, why_not
from .shared_prefix.plan import IGNORED
from .tokens import rows_of

with needing_extra("train"):
    import torch
    from datasets import Dataset, Features, Json, List, concatenate_datasets
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
    from trl import DPOConfig, DPOTrainer

log = logging.getLogger(__name__)
OnStep = Callable[[StepMetrics, int], None]
"""Called after each step with what it measured and how many steps there are in all."""
COMPUTING = ("dpo_hub", "trl", "transformers", "peft", "torch")
"""The packages whose versions may show in a log-probability."""


@dataclass(frozen=True)
class Trained:
    """What training leaves in memory: the policy (adapter on), its tokenizer, and what held-out pairs say of it."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    evaluation: dict[str, float]


def train(run: Run, on_step: OnStep | None = None) -> Trained:
    """Train the run's recipe on its pairs, log each step to the run, save the adapter, and measure held-out pairs.

    Raises:
        ModelError: the base model cannot be loaded, does not fit into memory, refuses the messages, or no prompt fits
            into `max_length`.
        DiskFullError: there is no room for what is written.
    """
    recipe = run.recipe
    with telling_disk_full(run.path), telling_model_limits():
        trainer = prepare(recipe, run.pairs("train"), run.pairs("held_out"), run.path / "checkpoints")
        trainer.add_callback(_Recorder(run, on_step))
        report = run.report | count_lengths(trainer, run.report, recipe)
        recipe, report["engine"] = settle_engine(trainer, recipe)
        run.write("report.json", json.dumps(report, indent=2, ensure_ascii=False))
        run.write("recipe.json", recipe.to_json())
        policy = cast(PeftModel, trainer.model)
        with computing(trainer, recipe):
            require_room(settle_memory(trainer, recipe, run.path), run)
            if measures_reference(trainer, recipe):
                _measure_reference(trainer, recipe)
            trainer.train()
            tokenizer = cast(PreTrainedTokenizerBase, trainer.processing_class)
            _save_adapter(policy, tokenizer, recipe, run.adapter)
            return Trained(policy, tokenizer, _evaluate(trainer, recipe.batch_size))


def prepare(recipe: Recipe, train: list[PreferencePair], held_out: list[PreferencePair], folder: Path) -> DPOTrainer:
    """Load the recipe's base model and make all ready to train an adapter on it; checkpoints go to *folder*.

    Raises:
        ModelError: the base model cannot be loaded.
    """
    model, tokenizer = load_base(recipe.model)
    if device().type == "cpu":
        keep_freed_memory()
    trainer = DPOTrainer(
        model=model,
        args=_arguments(recipe, folder),
        train_dataset=_dataset(train),
        eval_dataset=_dataset(held_out),
        processing_class=tokenizer,
        peft_config=_lora(recipe),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _splits(trainer: DPOTrainer) -> tuple[Dataset, Dataset]:
    """The tokenised pairs to train on and the held-out ones."""
    return cast(Dataset, trainer.train_dataset), cast(Dataset, trainer.eval_dataset)


def settle_engine(trainer: DPOTrainer, recipe: Recipe) -> tuple[Recipe, str]:
    """Settle what computes the log-probabilities, and say why where it is not what was asked for."""
    if recipe.engine == TRL:
        return recipe, "trl, as asked"
    policy = cast(PeftModel, trainer.model)
    reason = why_not(policy)
    if reason is None:
        longest, first, shortest = _telling_pairs(trainer)
        with trainer.accelerator.autocast():
            reason = disagreement(policy, _asked(trainer, [longest, first])) or disagreement(
                policy, _asked(trainer, [shortest]), gradient=True
            )
    if reason is None:
        return recipe, SHARED_PREFIX
    log.warning("the shared prefix cannot serve this model (%s); plain TRL trains it, which is slower", reason)
    return replace(recipe, engine=TRL), f"trl: {reason}"


def _telling_pairs(trainer: DPOTrainer) -> tuple[Any, Any, Any]:
    """The longest pair, where windows show, the first, and the shortest, whose gradient costs the least."""
    train, _ = _splits(trainer)
    sizes = [sum(map(len, rows_of(pair))) for pair in train]
    return train[sizes.index(max(sizes))], train[0], train[sizes.index(min(sizes))]


def _asked(trainer: DPOTrainer, pairs: list[Any]) -> dict[str, Any]:
    """What TRL would ask the model of these pairs."""
    batch = _collated(trainer, pairs)
    labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, IGNORED)
    return batch | {"labels": labels} | ({"output_router_logits": True} if trainer.aux_loss_enabled else {})


def _collated(trainer: DPOTrainer, pairs: list[Any]) -> dict[str, Any]:
    return {name: part.to(device()) for name, part in trainer.data_collator(pairs).items()}


def computing(trainer: DPOTrainer, recipe: Recipe) -> AbstractContextManager[None]:
    """Compute log-probabilities as `settle_engine` decided, for as long as the context lasts."""
    return shared_prefix(cast(PeftModel, trainer.model)) if recipe.engine == SHARED_PREFIX else nullcontext()


def measures_reference(trainer: DPOTrainer, recipe: Recipe) -> bool:
    """Whether the reference is measured once, ahead of the steps."""
    return recipe.epochs >= 1 and not length_sets_angles(cast(PeftModel, trainer.model).config)


def settle_memory(trainer: DPOTrainer, recipe: Recipe, folder: Path) -> Outlook:
    """Look ahead, and have activations computed again in the backward pass where memory would not hold them."""
    outlook = forecast(trainer, recipe, folder)
    policy, memory = cast(PeftModel, trainer.model), outlook.memory
    base = cast(PreTrainedModel, policy.get_base_model())
    if not memory.is_tight or not base.supports_gradient_checkpointing:
        return outlook
    log.info(
        "activations would take %.1f GB of %.1f GB: they will be computed twice",
        memory.activations / 1e9,
        memory.free / 1e9,
    )
    trainer.args.activation_checkpointing = True
    policy.enable_input_require_grads()
    cast(
        PreTrainedModel, policy.get_base_model()
    ).activation_checkpointing_enable()  # as training does; here for the forecast
    return forecast(trainer, recipe, folder)


def _measure_reference(trainer: DPOTrainer, recipe: Recipe) -> None:
    """Give each pair what the reference says of it, so that no step has to ask."""
    train, held_out = _splits(trainer)
    policy = cast(PeftModel, trainer.model).eval()  # as TRL does where it measures ahead; training puts it back

    def measure(pairs: list[Tokens]) -> torch.Tensor:
        batch = _collated(trainer, pairs)
        return torch.stack(trainer.compute_ref_log_probs(policy, batch), 1)  # type: ignore[no-untyped-call]

    measured = reference_log_probs(
        concatenate_datasets([train, held_out]).select_columns(list(TOKEN_PARTS)),
        measure,
        key=[
            fingerprint(cast(PreTrainedModel, policy.get_base_model())),
            *(f"{package} {version(package)}" for package in COMPUTING),
            f"{recipe.engine} {recipe.max_length} {recipe.batch_size} {dtype()} {device().type}",
        ],
        folder=home() / "cache" / "reference",
        batch_size=recipe.batch_size,
    )
    trainer.train_dataset = _with_reference(train, measured[: len(train)])
    trainer.eval_dataset = _with_reference(held_out, measured[len(train) :])
    trainer.precompute_ref_logps = True


def _with_reference(pairs: Dataset, measured: Figures) -> Dataset:
    chosen, rejected = measured.T
    return pairs.add_column("ref_chosen_logps", chosen).add_column("ref_rejected_logps", rejected)


def _evaluate(trainer: DPOTrainer, batch_size: int) -> dict[str, float]:
    """Measure the held-out pairs, each of the same weight.

    TRL averages over batches. Full batches and the remainder are therefore measured apart and weighed by their pairs.
    """
    _, held_out = _splits(trainer)
    full = len(held_out) - len(held_out) % batch_size
    parts = {str(part): held_out.select(part) for part in (range(full), range(full, len(held_out))) if part}
    trainer.eval_dataset = parts
    logs = [(len(part), trainer.evaluate(name)) for name, part in parts.items()]
    keys = logs[0][1].keys() & logs[-1][1].keys()
    return evaluation({key: sum(n * log[key] for n, log in logs) / len(held_out) for key in keys}, len(held_out))


def count_lengths(trainer: DPOTrainer, pairs: Mapping[str, Any], recipe: Recipe) -> dict[str, dict[str, int]]:
    """Count the pairs that `max_length` takes: whole ones that TRL dropped, and those whose replies it will cut.

    *pairs* says how many there were of `train` and `held_out`.

    Raises:
        ModelError: it leaves nothing to train on or nothing to measure with.
    """
    counts: dict[str, dict[str, int]] = {"dropped": {}, "cut": {}}
    for split, kept in zip(("train", "held_out"), _splits(trainer), strict=True):
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
        activation_checkpointing=False,
        save_strategy="no",
        logging_steps=1,
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
