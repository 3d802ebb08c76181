"""What the page does, without Gradio: read a file, start a run, tell how it goes, answer on both sides.

Names that come from the browser are looked up among what is there, and never used as paths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..demo import FILES
from ..demo.shop import USES
from ..errors import PreferencesError, RunError
from ..launch import start, stop
from ..preferences import Preferences, read_preferences, text_of
from ..progress import progress as progress_of
from ..recipe import Recipe
from ..run import Run, all_runs
from ..state import ENDED

if TYPE_CHECKING:
    from ..comparison.duet import Duet, Models

PREVIEW_ROWS = 4
SUGGESTIONS = 4
LOG_LINES = 200
TURNS = 4
"""Turns of a chat that the models are told; what is older only shows on the page."""

Message = dict[str, str]


@dataclass(frozen=True)
class Preview:
    """What a preference file was read as: one sentence, and its first pairs as (prompt, chosen, rejected)."""

    sentence: str
    rows: list[list[str]]


@dataclass(frozen=True)
class Progress:
    """How a run goes. `steps` is 0 until it is known; `curve` has one entry a step, as the run's metrics have it."""

    run: str
    about: str
    status: str
    sentence: str
    step: int
    steps: int
    curve: Sequence[Mapping[str, float]]
    reward_accuracy: float | None
    samples: Sequence[Mapping[str, str]]
    log: str

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def finished(self) -> bool:
        return self.status == "finished"


@dataclass(frozen=True)
class Conversation:
    """The two chats with the same questions, each with its own answers."""

    before: tuple[Message, ...] = ()
    after: tuple[Message, ...] = ()

    def asking(self, text: str) -> Conversation:
        question = {"role": "user", "content": text}
        return Conversation((*self.before, question), (*self.after, question))

    def answered(self, before: str, after: str) -> Conversation:
        return Conversation(
            (*self.before, {"role": "assistant", "content": before}),
            (*self.after, {"role": "assistant", "content": after}),
        )


def demo_files() -> dict[str, str]:
    """Title and name of each preference file that ships with the package."""
    return {use.title: use.name for use in USES.values()}


def demo_file(name: str) -> Path:
    """The path of the demo file of use *name*."""
    return FILES / f"{USES[name].name}.csv"


def preview(path: Path) -> Preview:
    """Read *path* and say what it was read as.

    Raises:
        PreferencesError: it cannot be read; the message has the file's name without its folder.
    """
    preferences = _read(path)
    rows = [
        [text_of(pair.prompt), text_of(pair.chosen), text_of(pair.rejected)]
        for pair in preferences.pairs[:PREVIEW_ROWS]
    ]
    return Preview(preferences.sentence(), rows)


def _read(path: Path) -> Preferences:
    try:
        return read_preferences(path)
    except PreferencesError as error:
        # Where an upload lies on this machine is nothing that its sender knows or needs.
        raise PreferencesError(str(error).replace(str(path), path.name)) from error


def safe_settings(model: str) -> list[Any]:
    """The values of the safe recipe for *model*, in the order of the recipe's fields."""
    recipe = Recipe.for_model(model.strip() or Recipe().model)
    return [getattr(recipe, setting.name) for setting in fields(Recipe)]


def start_training(path: Path, settings: Mapping[str, Any]) -> str:
    """Make a run of the pairs in *path* and start its worker; return the run's id.

    Raises:
        PreferencesError: the file gives too few pairs.
        RecipeError: a setting is out of range.
    """
    recipe = Recipe.for_model(settings["model"].strip(), **{k: v for k, v in settings.items() if k != "model"})
    run = Run.create(_read(path), recipe)
    start(run)
    return run.id


def stop_training(run_id: str) -> None:
    """Stop the run's worker, if there is such a run and it is at work."""
    if run := known_run(run_id):
        stop(run)


def find_run(wanted: str | None) -> str:
    """Return *wanted* where it is the id of a run, else the newest run's id, or nothing where there is none."""
    ids = [run.id for run in all_runs()]
    return wanted if wanted in ids else next(iter(ids), "")


def known_run(run_id: str) -> Run | None:
    """The run with exactly this id. `Run.open` would also take a folder, which no browser may name."""
    return next((run for run in all_runs() if run.id == run_id), None)


def progress(run_id: str) -> Progress | None:
    """Read how a run goes from its folder, or None where there is no such run."""
    run = known_run(run_id)
    if run is None:
        return None
    goes, curve, report = progress_of(run), run.metrics, run.report
    finished = goes.status == "finished"
    return Progress(
        run=run.id,
        about=f"{run.recipe.model} on {report['source']}: {report['train']} pairs, and {report['held_out']} held out",
        status=goes.status,
        sentence=goes.sentence,
        step=goes.step,
        steps=goes.steps,
        curve=curve,
        reward_accuracy=run.evaluation["reward_accuracy"] if finished else None,
        samples=run.samples if finished else (),
        log=run.log_tail(LOG_LINES),
    )


def suggestions(run_id: str) -> list[str]:
    """Held-out prompts to try both sides with."""
    run = known_run(run_id)
    if run is None or run.state.status != "finished":
        return []
    plain = (text_of(pair.prompt) for pair in run.pairs("held_out") if len(pair.prompt) == 1)
    return list(dict.fromkeys(plain))[:SUGGESTIONS]


class Stage:
    """Holds the models last talked to. Only here does the app's process load torch."""

    def __init__(self, open_duet: Callable[[Run], Duet] | None = None) -> None:
        self._open_duet = open_duet or _open_duet
        self._run_id = ""

    def has(self, run_id: str) -> bool:
        """Whether this run was talked to last, so that its models are in memory."""
        return self._run_id == run_id

    def answer(self, run_id: str, conversation: Conversation) -> Conversation:
        """Answer the last question of *conversation* on both sides, each from its own chat.

        Raises:
            RunError: there is no such run, it has not finished, or another trains on the GPU.
            ModelError: its base model cannot be loaded.
        """
        run = known_run(run_id)
        if run is None:
            raise RunError("There is no run to chat with any more. Train one first.")
        duet = self._open_duet(run.require_finished())
        self._run_id = run.id
        before, after = "", ""
        for more in duet.stream([_told(conversation.before), _told(conversation.after)]):
            before, after = before + more[0], after + more[1]
        return conversation.answered(before, after)


def _open_duet(run: Run) -> Duet:
    from ..comparison.duet import make_way
    from ..training.policy import device

    make_way(device())
    return _models().duet(run)


@cache
def _models() -> Models:
    from ..comparison.duet import Models
    from ..training.policy import quiet

    quiet()
    return Models()


def _told(chat: Sequence[Message]) -> list[Message]:
    return list(chat[-(2 * TURNS - 1) :])
