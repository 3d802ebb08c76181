"""Watches a run while it trains: evaluates it at a few points, reports problems, and stops it if `auto_stop` is set.

Its state is on disk, so a resumed run is watched as if it had never stopped. Knows nothing of TRL's classes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import ModelError, needing_extra
from ..recipe import Recipe
from ..runs.health import Finding, examine
from ..runs.run import Run
from .best import best_of, keep_best, restore_best
from .memory import is_out_of_memory
from .metrics import StepMetrics, step_metrics
from .probe import Probe, points, preserving_model_state
from .processes import IS_MAIN_PROCESS, WORLD_SIZE, all_reduce_any
from .stopwatch import Stopwatch

with needing_extra("train"):
    from transformers import TrainerCallback

log = logging.getLogger(__name__)

PAIRS = 64
"""The most held-out pairs measured at a point: their accuracy then has a standard error of at most about six points."""
FEWEST_PAIRS = 16
"""The fewest, if there are as many: with fewer, only extreme accuracies differ significantly from one half."""
SHARE = 0.2
"""Pairs measured per pair trained on since the last point. A forward pass is about a third of a step, so this makes a
short run about a fifteenth longer; sampling comes on top."""


SHORT = 5.0
"""Seconds that evaluations during training ("looks") may always take."""
SHARE_OF_TIME = 0.1
"""Beyond that, looks may take at most this share of the training time; further ones are skipped. A look generates a
fixed number of tokens, and a run's steps may be few and quick."""


def pairs_at_a_point(recipe: Recipe, steps: int) -> int:
    """How many held-out pairs each point of a run of *steps* measures."""
    trained = steps * recipe.effective_batch_size / max(recipe.evaluations, 1)
    return max(FEWEST_PAIRS, min(PAIRS, round(SHARE * trained)))


class Watch(TrainerCallback):
    """Measures, reports and stops. *measure* returns the figures of at most the given number of held-out pairs.

    Within *interruptible* a stop takes effect at once, even during measuring. All processes measure, since they do so
    together, but only the first one writes.
    """

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        probe: Probe,
        measure: Callable[[int], dict[str, float]],
        interruptible: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.run, self.recipe, self.probe, self.measure, self.interruptible = run, recipe, probe, measure, interruptible
        self.spent = Stopwatch()
        self.began = self.last_look = 0.0
        self.steps: list[dict[str, float]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.points: frozenset[int] = frozenset()
        self.total = 0
        self.known: set[str] = set()
        self.stop_reason = ""

    @property
    def best(self) -> Path:
        return self.run.path / "best"

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Load what earlier processes recorded up to the current step."""
        done, self.total, self.began = state.global_step, state.max_steps, self.spent.clock()
        self.points = points(self.total, self.recipe.evaluations)
        self.steps = [step for step in self.run.metrics if step["step"] <= done]
        self.evaluations = [point for point in self.run.evaluations if point["step"] <= done]
        self.known = {finding.kind for finding in self._findings()}
        if done in self.points and all(point["step"] != done for point in self.evaluations):
            self._measure(state)  # an earlier process was stopped while measuring it
        self._auto_stop(control)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record a step; if an evaluation is due, run it after the step's metrics were logged."""
        metrics = step_metrics(state.global_step, state.epoch, kwargs["logs"])
        if metrics is None:
            return
        self.steps.append(asdict(metrics))
        if metrics.broken:
            self._give_up(metrics, control)
        elif state.global_step in self.points and self._has_time(state):
            self._measure(state)
            self._auto_stop(control)
        self._log_findings()

    def _has_time(self, state: Any) -> bool:
        """Whether there is time for a look now; always with `auto_stop`. All processes must get the same answer."""
        if self.recipe.auto_stop:
            return True
        looked = self.spent.seconds.get("looks", 0.0)
        whole = (self.spent.clock() - self.began - looked) * self.total / state.global_step
        (too_long,) = all_reduce_any(looked + self.last_look > max(SHORT, SHARE_OF_TIME * whole))
        return not too_long

    def _measure(self, state: Any) -> None:
        began = self.spent.clock()
        with self.spent.timing("looks"):
            self._look(state)
        self.last_look = self.spent.clock() - began

    def _look(self, state: Any) -> None:
        logged, pairs = len(state.log_history), pairs_at_a_point(self.recipe, self.total)
        try:
            with self.interruptible(), preserving_model_state(self.probe.policy):
                measured = {"step": state.global_step, **self.measure(pairs), **self.probe.measure()}
        except (RuntimeError, MemoryError) as error:
            if WORLD_SIZE > 1 or not is_out_of_memory(error):
                raise
            log.warning("step %d is not evaluated: there is not enough memory beside training", state.global_step)
            return
        finally:
            del state.log_history[logged:]  # a checkpoint must contain only what training logged
        self.evaluations.append(measured)
        if IS_MAIN_PROCESS:
            self.run.append_evaluation(measured)
        if IS_MAIN_PROCESS and self.recipe.auto_stop and not (self._fatal_findings() and best_of(self.best)):
            keep_best(self.best, self.probe.policy, measured)

    def _fatal_findings(self) -> list[Finding]:
        """Findings that make this point worse than an earlier one, however low its held-out loss is."""
        return [finding for finding in self._findings() if finding.ends_training]

    def _findings(self) -> list[Finding]:
        return examine(self.steps, self.evaluations, self.recipe, self.total)

    def _log_findings(self) -> None:
        """Log new kinds of findings."""
        for finding in self._findings():
            if finding.kind not in self.known and IS_MAIN_PROCESS:
                log.warning("step %d: %s %s", finding.last_step, finding.message, finding.advice)
            self.known.add(finding.kind)

    def _auto_stop(self, control: Any) -> None:
        if not self.recipe.auto_stop:
            return
        fatal = self._fatal_findings()
        (stop,) = all_reduce_any(bool(fatal) and best_of(self.best) is not None)
        if stop:
            self.stop_reason, control.should_training_stop = fatal[0].message, True

    def _give_up(self, metrics: StepMetrics, control: Any) -> None:
        """Stop, to fall back on the best point with `auto_stop`.

        Raises:
            ModelError: there is no best point, or no `auto_stop`.
        """
        message = (
            f"At step {metrics.step} training broke down: loss {metrics.loss:g}, gradient norm {metrics.grad_norm:g}. "
            "The weights are unusable from there on."
        )
        if not (self.recipe.auto_stop and best_of(self.best)):
            raise ModelError(f"{message} Lower --learning-rate, for example to {self.recipe.learning_rate / 10:g}.")
        self.stop_reason, control.should_training_stop, control.should_save = message, True, False

    def restore_best_point(self, step: int) -> None:
        """With `auto_stop`, restore the best point to the policy of a run that ended at *step*, and report it."""
        best = restore_best(self.best, self.probe.policy) if self.recipe.auto_stop else None
        if best is None or (best.step == step and not self.stop_reason) or not IS_MAIN_PROCESS:
            return
        why = self.stop_reason or f"The held-out loss was lowest there, {best.loss:.3f}."
        steps = self.run.state.steps or step
        log.info("ended with step %d of %d; the adapter is that of step %d. %s", step, steps, best.step, why)
        settled = {"ended": step, "steps": steps, "kept": best.step, "why": why}
        self.run.write(
            "report.json", json.dumps(self.run.report | {"auto_stop": settled}, indent=2, ensure_ascii=False)
        )
