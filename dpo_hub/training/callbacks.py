"""Trainer callbacks: record each step in the run, and request checkpoints when they are due."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from transformers import TrainerCallback

from ..recipe import Recipe
from ..runs.run import Run
from .metrics import step_metrics
from .processes import WORLD_SIZE, all_reduce_any
from .stops import StopHandler

OnStep = Callable[[Mapping[str, float], int], None]
"""Called after each step with its metrics, the fields of `StepMetrics`, and the total number of steps."""


class Checkpointing(TrainerCallback):
    """Requests checkpoints: by time, by steps, and after the last step, so that later failures lose no training."""

    def __init__(self, recipe: Recipe, stops: StopHandler) -> None:
        self.recipe, self.stops, self.last = recipe, stops, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        every, minutes = self.recipe.checkpoint_steps, self.recipe.checkpoint_minutes
        by_steps = bool(every) and state.global_step % every == 0
        by_time = time.monotonic() - self.last >= 60 * minutes
        due, stop = all_reduce_any(by_steps or by_time or state.global_step >= state.max_steps, self.stops.requested)
        if stop and WORLD_SIZE > 1:
            self.stops.agreed = control.should_training_stop = True
        if due or self.stops.agreed:
            control.should_save = True
            self.last = time.monotonic()


class Recorder(TrainerCallback):
    """Writes each step to the run and passes it to *on_step*."""

    def __init__(self, run: Run, on_step: OnStep | None) -> None:
        self.run, self.on_step = run, on_step

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run.claim(steps=state.max_steps, done=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        metrics = step_metrics(state.global_step, state.epoch, kwargs["logs"])
        if metrics:
            figures = asdict(metrics)
            self.run.append_metrics(figures)
            if self.on_step:
                self.on_step(figures, state.max_steps)
