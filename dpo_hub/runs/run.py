"""A run is a folder: what was requested, what happened, and the result, readable with `ls` and `cat`.

Independent of models and of how training works. Files written here replace the old ones atomically, so that a reader
never sees half of one; logs of metrics are appended to.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from ..errors import RunError, explaining_disk_full
from ..preferences import PreferencePair, Preferences, split_pairs
from ..preferences.pairfile import Draft, PairFile, write_pairs
from ..preferences.pairs import digest
from ..recipe import Recipe
from .base_model import local_path
from .state import Process, State

LONGEST_LINE = 4096
"""Maximum length of a line of metrics, in bytes."""
REFERENCE = "reference"
"""The folder of the adapter that a run started from if it continues another run: its reference."""
REMOTE = "remote.json"
"""Exists if the run trains on another machine; `jobs.remote` defines its contents."""


def home() -> Path:
    """Return the folder of all runs: `DPO_HUB_HOME`, or by default the user's data folder. Runs are not a cache."""
    return Path(os.environ.get("DPO_HUB_HOME") or platformdirs.user_data_dir("dpo_hub", appauthor=False))


@dataclass(frozen=True)
class Run:
    """One run, identified by its folder. Reading a property reads the file; nothing is cached."""

    path: Path

    @classmethod
    def create(
        cls, preferences: Preferences, recipe: Recipe, *, previous: Run | None = None, shelf: Path | None = None
    ) -> Run:
        """Create the folder of a new run: recipe, split pairs, report, state `queued`. It may continue *previous*.

        The folder is in `runs` on the *shelf*, by default `home`.

        It is written under a temporary name and renamed, so a run that exists is complete.

        Raises:
            PreferencesError: there are too few prompts to split the pairs.
            ModelError: its GGUF file does not exist, or it is ambiguous which one is meant.
            RunError: *previous* has not finished.
            DiskFullError: the disk is full.
        """
        if place := local_path(recipe.model):
            recipe = replace(recipe, model=str(place))  # the same from any working directory
        from ..preferences.doctor import examine

        splits = split_pairs(preferences.pairs, recipe.held_out, seed=recipe.seed)
        stem = re.sub(r"[^a-z0-9]+", "-", Path(preferences.source).stem.lower())[:40].strip("-") or "run"
        runs = (shelf or home()) / "runs"
        path = runs / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        aside = path.with_name(f".{path.name}")
        with explaining_disk_full(runs):
            aside.mkdir(parents=True)
            run = cls(aside)
            run.write("recipe.json", recipe.to_json())
            sizes = {split: splits.count(split) for split in ("train", "held_out")}
            report = preferences.report() | {"sha256": digest(preferences.pairs)} | sizes | {"dropped": {}, "cut": {}}
            report["findings"] = [asdict(finding) for finding in examine(preferences)]
            if previous:
                report["continues"] = previous.id
                shutil.copytree(previous.require_finished().adapter, aside / REFERENCE)
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
            RunError: there is no such run, or the beginning matches several.
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
    def reference(self) -> Path | None:
        """The adapter that the run started from and is measured against; None if that is the base model."""
        return folder if (folder := self.path / REFERENCE).is_dir() else None

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def asked(self) -> Recipe:
        """The recipe as requested."""
        return Recipe.from_json((self.path / "recipe.json").read_text(encoding="utf-8"))

    @property
    def recipe(self) -> Recipe:
        """The recipe as executed: this model or machine may need another engine or smaller batches."""
        return replace(self.asked, **self.report.get("settled", {}))

    def settle(self, recipe: Recipe) -> None:
        """Record that the run is executed with *recipe*; the requested recipe stays unchanged."""
        asked, report = asdict(self.asked), self.report
        settled = {name: value for name, value in asdict(recipe).items() if value != asked[name]}
        if settled != report.get("settled", {}):
            self.write("report.json", json.dumps(report | {"settled": settled}, indent=2, ensure_ascii=False))

    @property
    def report(self) -> dict[str, Any]:
        """The preferences (source, layout, rows, pairs, left out, split, findings) and the settled settings."""
        return self._json("report.json")

    @property
    def remote(self) -> dict[str, Any]:
        """Where the run trains, if not on this machine."""
        return self._json(REMOTE) if (self.path / REMOTE).is_file() else {}

    @property
    def may_have_news(self) -> bool:
        """Whether the run trains elsewhere and may have changed there."""
        remote = self.remote
        return bool(remote) and (remote["pending"] or not self.written_state.ended)

    @property
    def evaluation(self) -> dict[str, float]:
        """The held-out evaluation of the adapter, with the names of `training.metrics.StepMetrics`."""
        return self._json("evaluation.json")

    @property
    def card(self) -> str:
        return (self.path / "README.md").read_text(encoding="utf-8")

    @property
    def metrics(self) -> list[dict[str, float]]:
        """One entry per step, with the names of `training.metrics.StepMetrics`."""
        return [_numbers(line) for line in self._json_lines("metrics.jsonl")]

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The measurements and samples taken during training, one entry per evaluation."""
        return [_numbers(line) for line in self._json_lines("evaluations.jsonl")]

    @property
    def samples(self) -> list[dict[str, str]]:
        return self._json_lines("samples.jsonl")

    @property
    def written_state(self) -> State:
        """The state on disk, whether or not the process that wrote it is still alive."""
        return State.of(self._json("state.json"))

    @property
    def state(self) -> State:
        """The state, except that a run whose processes are gone has failed, whatever is on disk."""
        state = self.written_state
        if not (state.worker or state.keeper) or self.remote or state.has_process(self.silence):
            return state  # for a run elsewhere, its job shows whether it is alive
        again = self.written_state  # the processes may have ended and recorded it between the two checks
        if again != state:
            return again
        return replace(state, status="failed", reason=self._last_words(), worker=None, keeper=None)

    def _last_words(self) -> str:
        last = self.log_tail(1)
        told = f"The last line of its log: {last}" if last else "Its log is empty."
        return f"The worker process is gone, and nobody saw why. {told}"

    def set_state(self, state: State) -> None:
        self.write("state.json", json.dumps(asdict(state) | {"updated": time.time()}))

    def end(self, status: str, reason: str = "", *, expected: bool = True) -> None:
        """Record that no process works on the run any more, with its final *status* and *reason*."""
        state = replace(self.written_state, status=status, reason=reason, expected=expected)
        self.set_state(replace(state, worker=None, keeper=None))

    @property
    def stop_asked(self) -> Path:
        """A file that exists from when the run is asked to stop until it is started again."""
        return self.path / ".stop"

    def claim(self, *, steps: int = 0, done: int = 0) -> None:
        """Record that this process works on the run, the total number of *steps*, and how many were *done* before."""
        process = Process.of()
        self.beat()
        self.set_state(replace(self.written_state, status="running", steps=steps, done=done, worker=process))

    @property
    def lock(self) -> FileLock:
        """Held by the process that starts or removes the run, and by its worker, so that only one works on it."""
        return FileLock(self.path / ".lock")

    def beat(self) -> None:
        """Record a heartbeat."""
        (self.path / ".heartbeat").touch()

    @property
    def silence(self) -> float:
        """Seconds since the last heartbeat."""
        try:
            return time.time() - (self.path / ".heartbeat").stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    def tidy(self) -> None:
        """Remove what an interrupted write left behind. Only call this while holding the lock."""
        for left in self.path.glob(".*.aside"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def remove(self) -> None:
        """Delete the folder; it disappears as a whole."""
        aside = self.path.with_name(f".{self.id}.{secrets.token_hex(4)}")
        self.path.rename(aside)
        shutil.rmtree(aside)

    def require_finished(self) -> Run:
        """Return the run itself.

        Raises:
            RunError: it has not finished, or has not been fetched from elsewhere. The message says what to do.
        """
        state = self.state
        if state.status != "finished":
            raise RunError(f"The run {self.id} is {state.status}, not finished. {state.reason}".strip())
        if self.remote and not self.adapter.is_dir():
            raise RunError(f"The run {self.id} has finished elsewhere. Bring it home first: dpo-hub fetch {self.id}")
        return self

    def pairs(self, split: str) -> list[PreferencePair]:
        """The pairs of a split, `train` or `held_out`."""
        return self.splits()[split]

    def splits(self) -> dict[str, list[PreferencePair]]:
        """The pairs of both splits, `train` and `held_out`."""
        parts: dict[str, list[PreferencePair]] = {"train": [], "held_out": []}
        for pair, split in PairFile(self.path / "preferences.parquet").with_splits():
            parts[str(split)].append(pair)
        return parts

    def write(self, name: str, content: str | bytes) -> None:
        """Replace the file *name* atomically. Lone surrogates, which a file name may contain, become `?`."""
        written = content if isinstance(content, bytes) else content.encode(errors="replace")
        aside = self.path / f".{name}.{secrets.token_hex(4)}.aside"
        try:
            with aside.open("wb") as file:
                file.write(written)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.path / name)
        except OSError:
            aside.unlink(missing_ok=True)
            raise

    def append_metrics(self, values: Mapping[str, float]) -> None:
        self._append("metrics.jsonl", values)

    def append_evaluation(self, values: Mapping[str, Any]) -> None:
        self._append("evaluations.jsonl", values)

    def _append(self, name: str, values: Mapping[str, Any]) -> None:
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite(values), ensure_ascii=False, allow_nan=False) + "\n")

    def rewind(self, step: int) -> None:
        """Discard measurements after *step*: a worker that resumes there repeats them."""
        for name in ("metrics.jsonl", "evaluations.jsonl"):
            if (self.path / name).is_file():
                kept = [line for line in self._json_lines(name) if line["step"] <= step]
                self.write(name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))

    @property
    def last_metrics(self) -> dict[str, float]:
        """The last line of the metrics, without reading the others; empty if there is none yet."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LONGEST_LINE))
            lines = file.read().split(b"\n")[:-1]  # the last is empty, or half written
        return _numbers(json.loads(lines[-1])) if lines else {}

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


def finite(line: Mapping[str, Any]) -> dict[str, Any]:
    """Replace non-finite numbers in *line* with null, as JSON cannot represent them."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in line.items()
    }


def _numbers(line: Mapping[str, Any]) -> dict[str, Any]:
    """Replace each null in *line* with NaN."""
    return {key: math.nan if value is None else value for key, value in line.items()}


def all_runs(shelf: Path | None = None) -> list[Run]:
    """Return all runs on the *shelf*, by default `home`, newest first by the time of their pairs, which never change.

    If several people share a machine, each has a shelf.
    """
    made = []
    for pairs in ((shelf or home()) / "runs").glob("[!.]*/preferences.parquet"):
        with suppress(FileNotFoundError):  # the run was just removed
            made.append((pairs.stat().st_mtime_ns, pairs.parent))
    return [Run(path) for _, path in sorted(made, reverse=True)]
