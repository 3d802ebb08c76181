"""Start and stop runs, and read their progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from ...errors import ModelError, PublishError
from ...hub.account import client, require_readable
from ...hub.calls import UnreachableError
from ...preferences import text_of
from ...recipe import Recipe
from ...runs.headline import accuracy_interval
from ...runs.health import Finding, examine
from ...runs.launch import remove, stop
from ...runs.progress import progress as progress_of
from ...runs.run import Run
from ...runs.state import ENDED
from ..limits import begin, run_slot
from ..visitors import Visitor
from .files import find, read
from .recipes import recipe_of

LOG_LINES = 200
SUGGESTIONS = 4


@dataclass(frozen=True)
class Progress:
    """The progress of a run. `steps` is 0 until it is known; `curve` has one entry a step, as in the run's metrics."""

    run: str
    about: str
    status: str
    sentence: str
    step: int
    steps: int
    curve: Sequence[Mapping[str, float]]
    evaluations: Sequence[Mapping[str, Any]]
    """The measurements on held-out pairs during training, with the replies at that point."""
    reward_accuracy: float | None
    accuracy_interval: tuple[float, float]
    samples: Sequence[Mapping[str, str]]
    recipe: Recipe
    log: str
    memory: int
    """Bytes of memory that its process uses, if it runs on this machine."""

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def finished(self) -> bool:
        return self.status == "finished"

    @property
    def resumable(self) -> bool:
        return self.status in ("stopped", "failed")

    @property
    def findings(self) -> list[Finding]:
        """The problems found in the whole course of the run."""
        return examine(self.curve, self.evaluations, self.recipe, self.steps)


def start_training(visitor: Visitor, file: str, settings: Mapping[str, Any]) -> str:
    """Create a run of the pairs in *file* and start its worker; return the run's id.

    Raises:
        PreferencesError: the file cannot be read or has too few pairs.
        RecipeError: a setting is out of range, or the base model is not allowed.
        ModelError: the base model cannot be downloaded without a token.
        RunError: the visitor, or all visitors together, have as many runs as are allowed.
    """
    preferences = read(find(visitor.shelf, file))
    recipe = recipe_of(settings, len(preferences.pairs))
    _require_public(visitor, recipe.model)
    with run_slot(visitor):
        run = Run.create(preferences, recipe, shelf=visitor.shelf)
        begin(run)
    return run.id


def _require_public(visitor: Visitor, model: str) -> None:
    """Make sure that training can load *model*: it outlives the visitor's session, so it does not have their token.

    Raises:
        ModelError: it cannot be loaded without a token.
    """
    if not visitor.name:
        return  # on your own machine training uses your own login
    try:
        require_readable(model, client(False))
    except UnreachableError:
        return  # it may have been downloaded before
    except PublishError:
        raise ModelError(
            f"The base model {model} is gated, private or not there, and training on this Space does not use your "
            "account. Choose a public base model, or train on your own machine with: dpo-hub train"
        ) from None


def stop_training(visitor: Visitor, run_id: str) -> None:
    """Stop the run's worker, if there is such a run and it is running."""
    if run := visitor.run(run_id):
        stop(run)


def resume_training(visitor: Visitor, run_id: str) -> None:
    """Resume a run that has stopped or failed, from its last checkpoint.

    Raises:
        RunError: it has finished or is running, or as many runs are waiting as are allowed.
    """
    if run := visitor.run(run_id):
        with run_slot(visitor, new=False):
            begin(run)


def remove_run(visitor: Visitor, run_id: str) -> None:
    """Delete a run and all that is in its folder.

    Raises:
        RunError: it is waiting or running.
    """
    if run := visitor.run(run_id):
        remove(run)


def progress(visitor: Visitor, run_id: str) -> Progress | None:
    """Read the progress of a run from its folder; None if there is no such run."""
    run = visitor.run(run_id)
    with suppress(FileNotFoundError):  # it was removed just now
        return _progress(run) if run else None
    return None


def _progress(run: Run) -> Progress:
    goes, curve, looks = progress_of(run), run.metrics, run.evaluations
    recipe, report = run.recipe, run.report
    finished = goes.status == "finished"
    measured = run.evaluation if finished else {}
    return Progress(
        run=run.id,
        about=f"{recipe.model} on {report['source']}: {report['train']} pairs, and {report['held_out']} held out",
        status=goes.status,
        sentence=goes.sentence,
        step=goes.step,
        steps=goes.steps,
        curve=curve,
        evaluations=looks,
        reward_accuracy=measured.get("reward_accuracy"),
        accuracy_interval=accuracy_interval(measured),
        samples=run.samples if finished else (),
        recipe=recipe,
        log=run.log_tail(LOG_LINES),
        memory=_memory(run),
    )


def status(visitor: Visitor, run_id: str) -> dict[str, Any] | None:
    """The status of a run and its last step's figures, without reading its whole course; None if there is no such run.

    Programs ask for it repeatedly, so it has to stay cheap however long the run gets.
    """
    run = visitor.run(run_id)
    if run is None:
        return None
    goes = progress_of(run)
    return {
        "run": run.id,
        "status": goes.status,
        "ended": goes.status in ENDED,
        "sentence": goes.sentence,
        "headline": asdict(goes.headline) if goes.headline else None,
        "step": goes.step,
        "steps": goes.steps,
        "reward_accuracy": run.evaluation["reward_accuracy"] if goes.status == "finished" else None,
        "last": run.last_metrics,
    }


def _memory(run: Run) -> int:
    worker = run.state.worker
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(worker.pid).memory_info().rss if worker and worker.alive() else 0
    return 0


def suggestions(visitor: Visitor, run_id: str) -> list[str]:
    """Held-out prompts to try on both sides."""
    run = visitor.run(run_id)
    if run is None or run.state.status != "finished":
        return []
    plain = (text_of(pair.prompt) for pair in run.pairs("held_out") if len(pair.prompt) == 1)
    return list(dict.fromkeys(plain))[:SUGGESTIONS]


def held_out_example(visitor: Visitor, run_id: str) -> tuple[str, str, str] | None:
    """Prompt, chosen and rejected reply of the first plain held-out pair of a finished run."""
    run = visitor.run(run_id)
    if run is None or run.state.status != "finished":
        return None
    plain = (pair for pair in run.pairs("held_out") if len(pair.prompt) == 1)
    return next(((text_of(pair.prompt), text_of(pair.chosen), text_of(pair.rejected)) for pair in plain), None)


def comparable(visitor: Visitor, run_id: str) -> list[str]:
    """The visitor's other finished runs on the same base model."""
    run = visitor.run(run_id)
    if run is None:
        return []
    finished = (other for other in visitor.runs() if other != run and other.state.status == "finished")
    return [other.id for other in finished if other.recipe.model == run.recipe.model]
