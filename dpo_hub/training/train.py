"""Trains a run: from its newest checkpoint to its adapter, retrying with less memory if that runs out."""

from __future__ import annotations

import gc
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from ..errors import ModelError, needing_extra
from ..preferences import PreferencePair
from ..recipe import Recipe
from ..runs.base_model import canonical_name, describe_origin
from ..runs.run import Run
from .callbacks import Checkpointing, OnStep, Recorder
from .checkpoints import flush, is_final, newest_good, processes_of, step_of
from .engine import choose_engine, using_engine
from .fitting import enable_activation_checkpointing, fit_to_memory, rehearse_largest
from .measuring import can_precompute_reference, evaluate, precompute_reference
from .memory import is_out_of_memory
from .policy import explaining_template_errors, origin_of
from .preflight import require_room
from .probe import Probe, select_pairs
from .processes import IS_MAIN_PROCESS, WORLD_SIZE
from .randomness import set_random_state
from .stops import StopHandler
from .stopwatch import Stopwatch
from .trainer import PreferenceTrainer, count_lengths, prepare, splits
from .versions import versions
from .watch import Watch

with needing_extra("train"):
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What training leaves in memory: the policy (adapter on), its tokenizer, and its held-out evaluation.

    `margins` has one entry per held-out pair, unless pairs were dropped or their margins are not known individually.
    `pairs` are the run's, by split.
    """

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    evaluation: dict[str, float]
    margins: Sequence[float]
    pairs: Mapping[str, Sequence[PreferencePair]]


def train(run: Run, on_step: OnStep | None = None, spent: Stopwatch | None = None) -> Trained:
    """Train the run's recipe on its pairs, log each step to the run, save the adapter, and measure held-out pairs.

    The time spent is added to *spent*: `preparing`, `reference`, `steps`, `looks` (evaluations during training) and
    `evaluation`.

    A run that has checkpoints continues from the newest good one. If memory runs out, a single process continues from
    the last step with a smaller batch size and more gradient accumulation, then with activation checkpointing.

    Raises:
        ModelError: the base model cannot be loaded, does not fit into memory even with the least memory use, or its
            chat template rejects the messages; no prompt fits into `max_length`; training broke down; or memory ran
            out with several processes.
        DiskFullError: there is no room for the checkpoints.
        KeyboardInterrupt: the run was stopped; the last step is kept as a checkpoint.
    """
    while True:
        try:
            with explaining_template_errors():
                return _attempt(run, on_step, spent or Stopwatch())
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            fitting = error.pairs if isinstance(error, _TooLargeError) else None
            if WORLD_SIZE > 1:
                raise ModelError(
                    "A device's memory is full. Train again with a lower --batch-size and a higher --accumulation, or "
                    "a lower --max-length; or resume with --activation-checkpointing."
                ) from error
        _reduce_memory(run, fitting)
        gc.collect()  # the error that kept the failed attempt's tensors alive is gone
        torch.cuda.empty_cache()


class _TooLargeError(MemoryError):
    """A batch will not fit, but one of *pairs* pairs would."""

    def __init__(self, pairs: int) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def _reduce_memory(run: Run, fitting: int | None) -> None:
    """Make the run's next attempt use less memory with the same effective batch size."""
    less = run.recipe.with_less_memory()
    while less and fitting and less.batch_size > fitting:
        less = less.with_less_memory()
    if less is None:
        raise ModelError(
            "The device's memory is full with one pair at a time and activation checkpointing. Lower --max-length or "
            "--lora-r, or take a smaller base model."
        )
    log.warning(
        "there is not enough memory: going on with batches of %d, %d to an update%s",
        less.batch_size,
        less.accumulation,
        ", and activation checkpointing" if less.activation_checkpointing else "",
    )
    run.settle(less)


def _attempt(run: Run, on_step: OnStep | None, spent: Stopwatch) -> Trained:
    with spent.timing("preparing"):
        pairs = run.splits()
        trainer, tokenizer, recipe, stops = _prepared(run, pairs, on_step)
    share = recipe.per_process(WORLD_SIZE)
    with stops.handling_signals(), using_engine(trainer, recipe):
        with spent.timing("preparing"):
            _make_room(trainer, share, run)
        if can_precompute_reference(trainer):
            with spent.timing("reference"):
                precompute_reference(trainer, share)
        watch = _watch(trainer, run, stops, spent)
        trainer.add_callback(watch)
        with spent.timing("steps"):
            _train_from_newest(trainer, stops, run)
        watch.restore_best_point(trainer.state.global_step)
        with spent.timing("evaluation"):
            _save_adapter(trainer, tokenizer, recipe, run.adapter)
            measured = evaluate(trainer)
            trainer.accelerator.wait_for_everyone()
        return Trained(cast(PeftModel, trainer.model), tokenizer, measured, trainer.margins, pairs)


def _prepared(
    run: Run, pairs: Mapping[str, list[PreferencePair]], on_step: OnStep | None
) -> tuple[PreferenceTrainer, PreTrainedTokenizerBase, Recipe, StopHandler]:
    """Everything that training needs, with the settled recipe; saves that recipe and the run's report."""
    recipe, stops = replace(run.recipe, engine=run.asked.engine), StopHandler()
    trainer = prepare(recipe, pairs["train"], pairs["held_out"], run.path / "checkpoints", reference=run.reference)
    tokenizer = cast(PreTrainedTokenizerBase, trainer.processing_class)
    for callback in (stops, Checkpointing(recipe, stops), *([Recorder(run, on_step)] if IS_MAIN_PROCESS else [])):
        trainer.add_callback(callback)
    report = run.report | count_lengths(trainer, run.report, recipe) | {"versions": versions()}
    if origin := origin_of(recipe.model):
        report["base"] = origin
        log.info("the base model was read from %s", describe_origin(origin))
    recipe, report["engine"] = choose_engine(trainer, recipe)
    if IS_MAIN_PROCESS:
        run.write("report.json", json.dumps(report, indent=2, ensure_ascii=False))
        run.settle(recipe)
    return trainer, tokenizer, recipe, stops


def _make_room(trainer: PreferenceTrainer, recipe: Recipe, run: Run) -> None:
    """Ensure that a step fits into memory before the first one. Skipped with several processes.

    Raises:
        ModelError, DiskFullError: the run is certain to fail.
        _TooLargeError: it fits with smaller batches.
    """
    if recipe.activation_checkpointing:
        enable_activation_checkpointing(trainer)
    if WORLD_SIZE > 1:
        return
    outlook = fit_to_memory(trainer, recipe, run.path)
    require_room(outlook, run, force=recipe.force)
    if outlook.fitting_batch_size < recipe.batch_size and not recipe.force:
        raise _TooLargeError(outlook.fitting_batch_size)
    rehearse_largest(trainer, recipe, outlook)


def _train_from_newest(trainer: PreferenceTrainer, stops: StopHandler, run: Run) -> None:
    """Train from the newest good checkpoint, if any; if training is interrupted, save its last step as one."""
    with trainer.args.main_process_first(local=False):  # the first process rewinds the run's metrics
        newest = newest_good(run.path / "checkpoints", trainer.checkpoint_problem)
        done = step_of(newest) if newest else 0
        if IS_MAIN_PROCESS:
            run.rewind(done)
    if newest:
        log.info("going on from step %d", done)
        if processes_of(newest) != WORLD_SIZE:
            log.warning(
                "%d processes began this run and %d go on: no longer exactly the same", processes_of(newest), WORLD_SIZE
            )
        if is_final(newest):
            trainer.load_weights(newest)
            return
    try:
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        if stops.agreed:
            raise KeyboardInterrupt
    except (KeyboardInterrupt, RuntimeError, MemoryError) as error:
        interrupted = isinstance(error, KeyboardInterrupt) or is_out_of_memory(error)
        if interrupted and stops.consistent and stops.random and trainer.state.global_step > done:
            with stops.deferred():
                set_random_state(stops.random)
                trainer.save_checkpoint()
        raise


def _watch(trainer: PreferenceTrainer, run: Run, stops: StopHandler, spent: Stopwatch) -> Watch:
    """The callback that monitors the run while it trains."""
    tokenizer, recipe = cast(PreTrainedTokenizerBase, trainer.processing_class), run.recipe
    if trainer.sharded:  # no process can answer a prompt by itself
        recipe = replace(recipe, evaluations=0, auto_stop=False)
    policy, autocast, length = cast(PeftModel, trainer.model), trainer.accelerator.autocast, recipe.max_length
    prompts = select_pairs(splits(trainer)[1], length)
    probe = Probe(policy, tokenizer, prompts, max_length=length, seed=recipe.seed, autocast=autocast)
    watch = Watch(run, recipe, probe, lambda most: evaluate(trainer, most=most), stops.interruptible)
    watch.spent = spent
    return watch


def _save_adapter(trainer: PreferenceTrainer, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, folder: Path) -> None:
    """Save adapter and tokenizer to *folder*: all or nothing, the same bytes each time, no local path in them."""
    config = cast(LoraConfig, cast(PeftModel, trainer.model).peft_config["default"])
    config.base_model_name_or_path = canonical_name(recipe.model)
    config.target_modules = sorted(config.target_modules or ())
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    aside = folder.with_name(".adapter.aside")
    trainer.save_model(str(aside), _internal_call=True)  # in all processes: each may hold a part of it
    if IS_MAIN_PROCESS:
        tokenizer.save_pretrained(aside)
        for path in (*aside.rglob("*"), aside):
            flush(path)
        shutil.rmtree(folder, ignore_errors=True)  # an earlier worker may have got this far
        aside.rename(folder)
        flush(folder.parent)  # before the run is marked as finished and its checkpoints are deleted
