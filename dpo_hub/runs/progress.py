"""Describes the progress of a run in a sentence, and reads its log as it grows. Reads only the run's folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from .headline import Headline, headline_of
from .queue import waiting_runs
from .run import Run
from .state import HEARTBEAT_TIMEOUT, State

SLOW_STEPS, LONG = 20, 300.0
"""A step is reported as possibly hung if it takes this many times as long as the others and this many seconds."""


@dataclass(frozen=True)
class Progress:
    """The progress of a run. `seconds_left` is None if it cannot be estimated.

    `steps` is the total, or the steps done so far until the total is known. `headline` is the result of a finished run.
    """

    status: str
    step: int
    steps: int
    seconds_left: float | None
    sentence: str
    headline: Headline | None = None


def progress(run: Run) -> Progress:
    """Read the progress of *run*."""
    state = run.state
    step = int(run.last_metrics.get("step", 0))
    pace = _pace(run, state, step)
    left = pace * (state.steps - step) if pace and state.status == "running" else None
    headline = headline_of(run) if state.status == "finished" else None
    sentence = f"Finished. {headline.sentence}" if headline else _sentence(run, state, step, pace)
    return Progress(state.status, step, state.steps or step, left, sentence, headline)


def _pace(run: Run, state: State, step: int) -> float | None:
    """Return the mean seconds per step since the worker took over the run."""
    done = step - state.done
    return (_last_step_at(run) - state.updated) / done if done > 0 and state.steps else None


def _last_step_at(run: Run) -> float:
    return (run.path / "metrics.jsonl").stat().st_mtime


def _sentence(run: Run, state: State, step: int, pace: float | None) -> str:
    if state.status in ("failed", "stopped"):
        return f"{state.status.capitalize()}{f' after step {step}' if step else ''}. {state.reason}".strip()
    if state.status == "queued":
        return _place(run, state)
    return _at_work(run, state, step, pace)


def _at_work(run: Run, state: State, step: int, pace: float | None) -> str:
    if run.silence > HEARTBEAT_TIMEOUT and not run.remote:
        return f"No sign of life for {duration(run.silence)}: its process may hang."
    if not state.steps:
        return "Loading the base model and preparing the pairs."
    if step >= state.steps:
        return "Measuring on the held-out pairs, and writing sample replies."
    if pace and (quiet := time.time() - _last_step_at(run)) > max(LONG, SLOW_STEPS * pace):
        return f"Training, but the last step was {duration(quiet)} ago."
    left = f", about {duration(pace * (state.steps - step))} left" if pace else ""
    return f"Training{left}."


def _place(run: Run, state: State) -> str:
    if not state.keeper and not state.worker:
        return "Queued, and not started yet."
    waiting = waiting_runs()
    ahead = waiting.index(run) if run in waiting else 0
    if ahead:
        return f"Queued behind {ahead} other run{'s' if ahead > 1 else ''} and the one that is training."
    return "Queued: it is next."


def duration(seconds: float) -> str:
    """Format seconds for reading: 8 s, 3 min, 2 h 5 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Log:
    """A log file written by other processes, read as it grows."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self.path = path
        self.place = path.stat().st_size if from_end and path.is_file() else 0

    def news(self) -> str:
        """Return the complete lines added since the last call."""
        if not self.path.is_file():
            return ""
        with self.path.open("rb") as file:
            file.seek(self.place)
            whole, newline, _ = file.read().rpartition(b"\n")
        self.place += len(whole) + len(newline)
        return (whole + newline).decode(errors="replace")
