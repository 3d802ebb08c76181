"""DPO with LoRA on TRL's `DPOTrainer`. The only module that imports TRL."""

from __future__ import annotations

import gc
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
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
from .checkpoints import newest_good, step_of, written_beside, written_whole
from .checkpoints import why_not as checkpoint_is_bad
from .memory import ROOM, activation_bytes, free_bytes, is_out_of_memory, keep_freed_memory
from .metrics import evaluation, step_metrics
from .policy import device, dtype, load_base, telling_refused_messages
from .probe import Probe, asked
from .processes import COUNT, FIRST, any_of_all
from .reference import TOKEN_PARTS, Figures, Tokens, fingerprint, reference_log_probs
from .shared_prefix import length_sets_angles, shared_prefix
from .shared_prefix.limits import disagreement, why_not
from .shared_prefix.plan import IGNORED, packed_length
from .stops import Stops, set_random_state
from .watch import Watch

with needing_extra("train"):
    import torch
    from datasets import Dataset, Features, Json, List, concatenate_datasets
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
    from trl import DPOConfig, DPOTrainer

log = logging.getLogger(__name__)
OnStep = Callable[[Mapping[str, float], int], None]
"""Called after each step with what it measured, as `StepMetrics` has it, and how many steps there are in all."""
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

    A run that has checkpoints goes on from the newest good one. Where memory runs out, it goes on from the last step
    with what needs less: smaller batches, more of them to an update, then activation checkpointing.

    Raises:
        ModelError: the base model cannot be loaded, does not fit into memory however little it is given at a time,
            refuses the messages, or no prompt fits into `max_length`.
        DiskFullError: there is no room for what is written.
        KeyboardInterrupt: it was told to stop; the last step is kept as a checkpoint.
    """
    if device().type == "cpu":
        keep_freed_memory()
    while True:
        try:
            with telling_disk_full(run.path), telling_refused_messages():
                return _attempt(run, on_step)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if COUNT > 1:
                raise ModelError(
                    "A device's memory is full. Lower --batch-size and raise --accumulation as much, lower "
                    "--max-length, or give --activation-checkpointing; then resume."
                ) from error
        _need_less(run)
        gc.collect()  # the failed attempt's tensors went with its error
        torch.cuda.empty_cache()


def _need_less(run: Run) -> None:
    """Have the run's next attempt take less memory, to the same effective batch."""
    recipe = run.recipe
    less = recipe.needing_less_memory()
    if less is None:
        raise ModelError(
            "The device's memory is full with one pair at a time and activation checkpointing. Lower --max-length or "
            "--lora-r, or take a smaller base model."
        )
    log.warning(
        "memory ran out: going on with batches of %d, %d to an update%s",
        less.batch_size,
        less.accumulation,
        ", and activation checkpointing" if less.activation_checkpointing else "",
    )
    run.write("recipe.json", less.to_json())


def _attempt(run: Run, on_step: OnStep | None) -> Trained:
    recipe, stops = run.recipe, Stops()
    model, tokenizer = load_base(recipe.model)
    trainer = _Trainer(
        model=model,
        args=_arguments(recipe.shared_by(COUNT), run.path / "checkpoints"),
        train_dataset=_dataset(run.pairs("train")),
        eval_dataset=_dataset(run.pairs("held_out")),
        processing_class=tokenizer,
        peft_config=_lora(recipe),
        callbacks=[stops, _Checkpointing(recipe, stops), *([_Recorder(run, on_step)] if FIRST else [])],
    )
    trainer.remove_callback(PrinterCallback)
    report = run.report | _lengths(trainer, run, recipe)
    recipe, report["engine"] = _engine(trainer, recipe)
    if FIRST:
        run.write("report.json", json.dumps(report, indent=2, ensure_ascii=False))
        run.write("recipe.json", recipe.to_json())
    recipe = recipe.shared_by(COUNT)
    policy = cast(PeftModel, trainer.model)
    with stops.heeded(), shared_prefix(policy) if recipe.engine == SHARED_PREFIX else nullcontext():
        _spare_memory(trainer, recipe)
        if recipe.epochs >= 1 and not length_sets_angles(policy.config):
            _measure_reference(trainer, recipe)
        watch = _watch(trainer, run, stops)
        trainer.add_callback(watch)
        _train_from_newest(trainer, stops, run)
        watch.settle(trainer.state.global_step)
        _save_adapter(trainer, tokenizer, recipe, run.adapter)
        measured = _evaluate(trainer)
        trainer.accelerator.wait_for_everyone()
        return Trained(policy, tokenizer, measured)


def _train_from_newest(trainer: _Trainer, stops: Stops, run: Run) -> None:
    """Train from the newest good checkpoint, if any; what ends it early leaves the last step as one."""
    with trainer.args.main_process_first(local=False):  # the first clears away what is torn
        newest = newest_good(run.path / "checkpoints", trainer.why_not)
        done = step_of(newest) if newest else 0
        if FIRST:
            run.rewind(done)
    if newest:
        log.info("going on from step %d", done)
    try:
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        if stops.agreed:
            raise KeyboardInterrupt
    except (KeyboardInterrupt, RuntimeError, MemoryError) as error:
        interrupted = isinstance(error, KeyboardInterrupt) or is_out_of_memory(error)
        if interrupted and stops.at_rest and stops.random and trainer.state.global_step > done:
            with stops.held_back():
                set_random_state(stops.random)
                trainer.save_checkpoint()
        raise


class _Trainer(DPOTrainer):
    """TRL's trainer, except that a checkpoint is there whole or not at all."""

    def why_not(self, folder: Path) -> str | None:
        """Say what is wrong with the checkpoint *folder*, or None."""
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        return checkpoint_is_bad(folder, cast(PeftModel, self.model), COUNT, sharded=sharded)

    def save_checkpoint(self) -> None:
        """Write a checkpoint of the last step, unless there is one."""
        if not (Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}").is_dir():
            self._save_checkpoint(self.model_wrapped, None)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(str(self.args.output_dir))
        target = folder / f"checkpoint-{self.state.global_step}"
        wait = self.accelerator.wait_for_everyone
        with written_whole(target, self.why_not, wait) if FIRST else written_beside(target, wait) as aside:
            self.args.output_dir = str(aside)
            try:
                super(DPOTrainer, self)._save_checkpoint(model, trial)  # TRL's own writes a card beside it
            finally:
                self.args.output_dir = str(folder)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the adapter, and neither the tokenizer, a card, nor a pickle of the arguments."""
        folder, policy = Path(str(output_dir or self.args.output_dir)), cast(PeftModel, self.model)
        policy.save_pretrained(str(folder), save_embedding_layers=False, is_main_process=FIRST, state_dict=state_dict)
        if FIRST:
            (folder / "README.md").unlink()


def _splits(trainer: DPOTrainer) -> tuple[Dataset, Dataset]:
    """The tokenised pairs to train on and the held-out ones."""
    return cast(Dataset, trainer.train_dataset), cast(Dataset, trainer.eval_dataset)


def _engine(trainer: DPOTrainer, recipe: Recipe) -> tuple[Recipe, str]:
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
    sizes = [sum(map(len, _rows(pair))) for pair in train]
    return train[sizes.index(max(sizes))], train[0], train[sizes.index(min(sizes))]


def _asked(trainer: DPOTrainer, pairs: list[Any]) -> dict[str, Any]:
    """What TRL would ask the model of these pairs."""
    batch = _collated(trainer, pairs)
    labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, IGNORED)
    return batch | {"labels": labels} | ({"output_router_logits": True} if trainer.aux_loss_enabled else {})


def _collated(trainer: DPOTrainer, pairs: list[Any]) -> dict[str, Any]:
    return {name: part.to(device()) for name, part in trainer.data_collator(pairs).items()}


def _rows(pair: Tokens) -> list[list[int]]:
    return [[*pair["prompt_ids"], *pair["chosen_ids"]], [*pair["prompt_ids"], *pair["rejected_ids"]]]


def _spare_memory(trainer: DPOTrainer, recipe: Recipe) -> None:
    """Have activations computed again in the backward pass where memory would not hold them."""
    train, _ = _splits(trainer)
    pairs = ([row[: recipe.max_length] for row in _rows(pair)] for pair in train)
    if recipe.engine == SHARED_PREFIX:
        tokens = sum(sorted(map(packed_length, pairs))[-recipe.batch_size :])
    else:
        tokens = 2 * recipe.batch_size * max(len(row) for pair in pairs for row in pair)
    policy = cast(PeftModel, trainer.model)
    needed, free = activation_bytes(policy.config, tokens, dtype()), free_bytes(device())
    wanted = recipe.activation_checkpointing or needed > ROOM * free
    if wanted and policy.get_base_model().supports_gradient_checkpointing:
        log.info("activations may take %.1f GB of %.1f GB: they will be computed twice", needed / 1e9, free / 1e9)
        trainer.args.activation_checkpointing = True
        policy.enable_input_require_grads()


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


def _watch(trainer: DPOTrainer, run: Run, stops: Stops) -> Watch:
    """What looks at the run while it trains."""
    tokenizer, recipe = cast(PreTrainedTokenizerBase, trainer.processing_class), run.recipe
    policy, autocast, length = cast(PeftModel, trainer.model), trainer.accelerator.autocast, recipe.max_length
    prompts = asked(_splits(trainer)[1], length)
    probe = Probe(policy, tokenizer, prompts, max_length=length, seed=recipe.seed, autocast=autocast)
    return Watch(run, recipe, probe, lambda most: _evaluate(trainer, most=most), stops.let_in)


def _evaluate(trainer: DPOTrainer, *, most: int | None = None) -> dict[str, float]:
    """Measure the held-out pairs, or the first *most* of them, each of the same weight.

    TRL averages over batches. Batches of different sizes are therefore measured apart and weighed by their pairs.
    """
    _, every = _splits(trainer)
    count, batch_size = min(most or len(every), len(every)), trainer.args.per_device_eval_batch_size
    logs = []
    for pairs, size, weight in even_parts(count, batch_size, COUNT):
        trainer.eval_dataset, trainer.args.per_device_eval_batch_size = every.select(pairs), size
        logs.append((weight, trainer.evaluate()))
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


def _lengths(trainer: DPOTrainer, run: Run, recipe: Recipe) -> dict[str, dict[str, int]]:
    """Count the pairs that `max_length` takes: whole ones that TRL dropped, and those whose replies it will cut.

    Raises:
        ModelError: it leaves nothing to train on or nothing to measure with.
    """
    counts: dict[str, dict[str, int]] = {"dropped": {}, "cut": {}}
    for split, kept in zip(("train", "held_out"), _splits(trainer), strict=True):
        asked = run.report[split]
        if not len(kept):
            raise ModelError(
                f"max_length, {recipe.max_length} tokens, is too short for all {asked} {split.replace('_', '-')} "
                "prompts. Raise --max-length."
            )
        counts["dropped"][split] = asked - len(kept)
        counts["cut"][split] = sum(max(map(len, _rows(pair))) > recipe.max_length for pair in kept)
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


def _save_adapter(trainer: _Trainer, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, folder: Path) -> None:
    """Save adapter and tokenizer to *folder*: all or nothing, the same bytes each time, no local path in them."""
    config = cast(LoraConfig, cast(PeftModel, trainer.model).peft_config["default"])
    config.base_model_name_or_path = recipe.model
    config.target_modules = sorted(config.target_modules or ())
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    aside = folder.with_name(".adapter.aside")
    trainer.save_model(str(aside), _internal_call=True)  # by all processes: each may have a part of it
    if FIRST:
        tokenizer.save_pretrained(aside)
        shutil.rmtree(folder, ignore_errors=True)  # an earlier worker may have come this far
        aside.rename(folder)


class _Checkpointing(TrainerCallback):
    """Says when a checkpoint is due: by time, by steps, and at the end, so that what follows training can fail."""

    def __init__(self, recipe: Recipe, stops: Stops) -> None:
        self.recipe, self.stops, self.last = recipe, stops, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        every, minutes = self.recipe.checkpoint_steps, self.recipe.checkpoint_minutes
        by_steps = bool(every) and state.global_step % every == 0
        by_time = time.monotonic() - self.last >= 60 * minutes
        due, stop = any_of_all(by_steps or by_time or state.global_step >= state.max_steps, self.stops.asked)
        if stop and COUNT > 1:
            self.stops.agreed = control.should_training_stop = True
        if due or self.stops.agreed:
            control.should_save = True
            self.last = time.monotonic()


class _Recorder(TrainerCallback):
    """Writes each step to the run and tells whoever watches."""

    def __init__(self, run: Run, on_step: OnStep | None) -> None:
        self.run, self.on_step = run, on_step

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run.claim(steps=state.max_steps, done=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        metrics = step_metrics(state.global_step, state.epoch, kwargs["logs"])
        if metrics:
            self.run.append_metrics(asdict(metrics))
            if self.on_step:
                self.on_step(asdict(metrics), state.max_steps)
