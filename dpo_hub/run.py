"""A run is a folder: what was asked for, what happened, and what came of it, readable with `ls` and `cat`.

Knows nothing of models or of how training works. Whatever is written here replaces the old file in one step, so that a
reader never sees half of it.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import platformdirs
import psutil

from .errors import RunError, telling_disk_full
from .preferences import PreferencePair, Preferences, split_pairs
from .preferences.pairfile import Draft, PairFile, write_pairs
from .preferences.pairs import digest
from .recipe import DEMO_MODEL, Recipe

ENDED = ("finished", "failed", "stopped")


def home() -> Path:
    """The folder of all runs: `DPO_HUB_HOME`, by default the user's data folder. Runs are people's work, not cache."""
    return Path(os.environ.get("DPO_HUB_HOME") or platformdirs.user_data_dir("dpo_hub", appauthor=False))


@dataclass(frozen=True)
class State:
    """Where a run stands: `queued`, `running`, `finished`, `failed` or `stopped`, with the reason.

    `steps` is how many there will be in all, 0 until that is known. `pid` and `pid_created` name the worker process for
    good: a later process may get the same number, but not the same start time.
    """

    status: str
    reason: str = ""
    steps: int = 0
    pid: int = 0
    pid_created: float = 0.0
    updated: float = 0.0

    @property
    def ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True)
class Run:
    """One run, by its folder. Reading a property reads the file; nothing is cached."""

    path: Path

    @classmethod
    def create(cls, preferences: Preferences, recipe: Recipe) -> Run:
        """Make the folder of a new run: recipe, split pairs, report, state `queued`.

        It is written aside and renamed, so a run that exists is complete.

        Raises:
            PreferencesError: there are too few pairs to split.
            DiskFullError: there is no room.
        """
        if recipe.model != DEMO_MODEL and Path(recipe.model).is_dir():
            recipe = replace(recipe, model=str(Path(recipe.model).resolve()))  # the same from any working directory
        splits = split_pairs(preferences.pairs, recipe.held_out, seed=recipe.seed)
        stem = re.sub(r"[^a-z0-9]+", "-", Path(preferences.source).stem.lower()).strip("-")[:40] or "run"
        runs = home() / "runs"
        path = runs / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        aside = path.with_name(f".{path.name}")
        with telling_disk_full(runs):
            aside.mkdir(parents=True)
            run = cls(aside)
            run.write("recipe.json", recipe.to_json())
            sizes = {split: splits.count(split) for split in ("train", "held_out")}
            report = preferences.report() | {"sha256": digest(preferences.pairs)} | sizes | {"dropped": {}, "cut": {}}
            run.write("report.json", json.dumps(report, indent=2, ensure_ascii=False))
            with (aside / "preferences.parquet").open("wb") as file:
                write_pairs(map(Draft.of, preferences.pairs, splits), file)
            run.set_state(State("queued"))
            aside.rename(path)
        return cls(path)

    @classmethod
    def open(cls, name: str | Path) -> Run:
        """Find a run by its id, the beginning of its id, `last`, or its folder.

        Raises:
            RunError: there is none, or the beginning fits several.
        """
        if all((Path(name) / needed).is_file() for needed in ("recipe.json", "state.json")):
            return cls(Path(name).resolve())
        runs = all_runs()
        if name == "last" and runs:
            return runs[0]
        fitting = [run for run in runs if run.id.startswith(str(name))]
        if len(fitting) == 1:
            return fitting[0]
        if not runs:
            raise RunError(f"There is no run {name}: no run was made yet under {home()}. Start with dpo-hub train.")
        some = ", ".join(run.id for run in (fitting or runs)[:3])
        raise RunError(
            f"{'Several runs begin with' if fitting else 'There is no run'} {name}. Say which: {some}, or last."
        )

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def recipe(self) -> Recipe:
        return Recipe.from_json((self.path / "recipe.json").read_text(encoding="utf-8"))

    @property
    def report(self) -> dict[str, Any]:
        """What the preferences were: source, layout, rows, pairs, what was left out, and the split."""
        return self._json("report.json")

    @property
    def evaluation(self) -> dict[str, float]:
        """What the held-out pairs say of the adapter, in the words of `training.metrics.StepMetrics`."""
        return self._json("evaluation.json")

    @property
    def card(self) -> str:
        return (self.path / "README.md").read_text(encoding="utf-8")

    @property
    def metrics(self) -> list[dict[str, float]]:
        """A line a step, in the words of `training.metrics.StepMetrics`."""
        return [_numbers(line) for line in self._json_lines("metrics.jsonl")]

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """What was measured and sampled while the run trained, one entry a point, in the order of their steps.

        A resumed run may come by a point again; the later entry counts.
        """
        by_step = {line["step"]: _numbers(line) for line in self._json_lines("evaluations.jsonl")}
        return [by_step[step] for step in sorted(by_step)]

    @property
    def samples(self) -> list[dict[str, str]]:
        return self._json_lines("samples.jsonl")

    @property
    def state(self) -> State:
        """The state on disk, except that a run whose worker is gone has failed, whatever the file still says."""
        state = State(**self._json("state.json"))
        if state.status == "running" and not _alive(state):
            last = self.log_tail(1) or "its log is empty"
            return replace(
                state, status="failed", reason=f"The worker process ended early; the last line of its log: {last}"
            )
        return state

    def set_state(self, state: State) -> None:
        self.write("state.json", json.dumps(asdict(state) | {"updated": time.time()}))

    def claim(self, *, steps: int = 0) -> None:
        """Say that this process is the run's worker, and how many steps there will be if that is known."""
        process = psutil.Process()
        self.set_state(State("running", steps=steps, pid=process.pid, pid_created=process.create_time()))

    def require_finished(self) -> Run:
        """Return the run itself.

        Raises:
            RunError: it has not finished, with its state and what to do.
        """
        state = self.state
        if state.status != "finished":
            raise RunError(f"The run {self.id} is {state.status}, not finished. {state.reason}".strip())
        return self

    def pairs(self, split: str) -> list[PreferencePair]:
        """The pairs of a split, `train` or `held_out`."""
        found = PairFile(self.path / "preferences.parquet").with_splits()
        return [pair for pair, of in found if of == split]

    def write(self, name: str, text: str) -> None:
        """Replace the file *name* in one step."""
        aside = self.path / f".{name}.{secrets.token_hex(4)}"
        aside.write_text(text, encoding="utf-8")
        aside.replace(self.path / name)

    def append_metrics(self, values: Mapping[str, float]) -> None:
        self._append("metrics.jsonl", values)

    def append_evaluation(self, values: Mapping[str, Any]) -> None:
        self._append("evaluations.jsonl", values)

    def _append(self, name: str, values: Mapping[str, Any]) -> None:
        """Add a line. What is not a finite number goes as null, as JSON has no other word for it."""
        finite = {key: None if _not_finite(value) else value for key, value in values.items()}
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n")

    def log_tail(self, lines: int) -> str:
        if not self.log.is_file():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()[-lines:])

    def _json(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        return found

    def _json_lines(self, name: str) -> list[Any]:
        path = self.path / name
        if not path.is_file():
            return []
        return [
            json.loads(line)
            for line in path.read_text(encoding="utf-8").split("\n")[:-1]  # the last is empty, or half written
        ]


def _not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _numbers(line: Mapping[str, Any]) -> dict[str, Any]:
    """The *line* with each null as the number that is none."""
    return {key: math.nan if value is None else value for key, value in line.items()}


def _alive(state: State) -> bool:
    try:
        process = psutil.Process(state.pid)
        return abs(process.create_time() - state.pid_created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _folders() -> Iterator[Path]:
    runs = home() / "runs"
    return runs.glob("[!.]*/recipe.json") if runs.is_dir() else iter(())


def all_runs() -> list[Run]:
    """Every run, the newest first."""
    made = sorted(_folders(), key=lambda recipe: recipe.stat().st_mtime_ns, reverse=True)
    return [Run(recipe.parent) for recipe in made]
