"""Kill the processes of real runs again and again, and see that nothing is lost, stuck, doubled or changed.

    python -m tests.chaos.chaos 100

Several streams of runs go on side by side, each in a home of its own. A stream first lets a run finish in peace; every
later run of the same pairs and recipe is killed time after time, resumed, and must leave the very same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from dpo_hub.demo import FILES
from dpo_hub.preferences import read_preferences
from dpo_hub.recipe import Recipe
from dpo_hub.runs.launch import start, stop
from dpo_hub.runs.run import Run
from dpo_hub.runs.state import Process

PATIENCE = 300.0
"""Seconds after which a run counts as stuck. Ten are enough, unless the machine is busy."""
LOOK = 0.002
"""Seconds between two looks: less than the writing of a checkpoint takes."""
KILLS_A_RUN = 6
STOPS = 0.2
"""The share of moments at which the run is stopped before anything is killed."""
STREAMS: dict[str, dict[str, Any]] = {"tone": {"epochs": 1.0}, "safety": {"epochs": 1.5, "auto_stop": True}}
"""The demo files trained on and how, a stream each: two cores hold two."""
PAIRS = 60

Moment = Callable[[Run], bool]
"""Whether now is the time to kill."""


class LostError(AssertionError):
    """What must not happen."""


def _starting(_run: Run) -> bool:
    return True


def _writing_a_checkpoint(run: Run) -> bool:
    return (run.path / "checkpoints" / ".aside").is_dir()


def _renamed_a_checkpoint(run: Run) -> bool:
    return len(list((run.path / "checkpoints").glob("checkpoint-*"))) > 2  # the third goes right after the renaming


def _writing_the_adapter(run: Run) -> bool:
    return (run.path / ".adapter.aside").is_dir()


def _measuring(run: Run) -> bool:
    return (run.path / "adapter").is_dir()


def _some_steps_on(run: Run, steps: int) -> Moment:
    begun = run.last_metrics.get("step", 0)
    return lambda run: run.last_metrics.get("step", 0) >= begun + steps


def moments(run: Run, dice: random.Random) -> Moment:
    """Pick what to wait for before the next kill; more often what is more delicate."""
    every = [
        _starting,
        *[_writing_a_checkpoint] * 4,
        _renamed_a_checkpoint,
        _some_steps_on(run, 1),
        _some_steps_on(run, 2),
        _writing_the_adapter,
        _measuring,
    ]
    return dice.choice(every)


@dataclass
class Tally:
    """Kills that a run survived, and what went wrong."""

    passed: int = 0
    failures: tuple[str, ...] = ()


def stream(use: str, kills: int, seed: int, home: Path) -> Tally:
    """Kill *kills* times in as many runs as that takes, and compare each adapter with that of a run left in peace."""
    os.environ["DPO_HUB_HOME"] = str(home)
    dice, tally = random.Random(seed), Tally()
    peaceful = _finished(_new_run(use, home))
    while tally.passed < kills and not tally.failures:
        run = _new_run(use, home)
        try:
            survived = _torture(run, min(KILLS_A_RUN, kills - tally.passed), dice)
            _require_the_same(run, peaceful)
            tally.passed += survived
        except LostError as lost:
            tally.failures += (f"{run.path}: {lost}\n{run.log_tail(20)}",)
    return tally


def _new_run(use: str, home: Path) -> Run:
    file = home / f"{use}.csv"
    if not file.is_file():
        lines = (FILES / f"{use}.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(lines[: PAIRS + 1]), encoding="utf-8")
    recipe = Recipe.for_model(batch_size=8, checkpoint_steps=1, **STREAMS[use])
    return Run.create(read_preferences(file), recipe)


def _finished(run: Run) -> Run:
    start(run)
    _until(run, lambda run: run.state.ended)
    if run.state.status != "finished":
        raise LostError(f"a run left in peace did not finish: {run.state}")
    return run


def _torture(run: Run, kills: int, dice: random.Random) -> int:
    """Kill worker, keeper or both at *kills* delicate moments, resume each time, and let the run finish.

    Now and then it is stopped instead, or a killed worker is taken up again by its keeper.
    """
    done = 0
    start(run, keep_going=dice.choice((0, 0, 1)))
    while done < kills:
        now = moments(run, dice)
        _until(run, lambda run, now=now: run.state.ended or now(run))
        time.sleep(dice.choice((0, 0, dice.random() * 0.05, dice.random())))
        if dice.random() < STOPS:
            stop(run)
        victims = [process for process in _victims(run, dice) if _kill(process)]
        if run.state.status == "finished":
            return done
        done += bool(victims)
        _until(run, lambda run: run.state.ended or _at_work(run) is not None)
        if run.state.status == "finished":
            return done
        if run.state.ended:
            start(run, keep_going=dice.choice((0, 0, 1)))
    _until(run, lambda run: run.state.ended)
    while run.state.status != "finished":  # the last kill may have struck after the last resume
        start(run)
        _until(run, lambda run: run.state.ended)
    return done


def _at_work(run: Run) -> Process | None:
    worker = run.written_state.worker
    return worker if worker and worker.alive() else None


def _victims(run: Run, dice: random.Random) -> Iterator[Process]:
    state = run.written_state
    worker, keeper = dice.choice(((True, False), (True, False), (True, True), (False, True)))
    if keeper and state.keeper:
        yield state.keeper
    if worker and state.worker:
        yield state.worker


def _kill(process: Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        if process.alive():
            psutil.Process(process.pid).kill()
            return True
    return False


def _until(run: Run, happens: Moment) -> None:
    end = time.monotonic() + PATIENCE
    while not happens(run):
        if time.monotonic() > end:
            raise LostError(f"stuck: {run.state}")
        time.sleep(LOOK)


def _require_the_same(run: Run, peaceful: Run) -> None:
    """Adapter, held-out figures and every step's metrics are those of the run that nobody disturbed."""
    if _digest(run.adapter) != _digest(peaceful.adapter):
        raise LostError("its adapter is another")
    if run.evaluation != peaceful.evaluation:
        raise LostError("its held-out figures are others")
    if run.metrics != peaceful.metrics:
        raise LostError("its steps are others, or were logged twice or not at all")
    if left := [path.name for path in run.path.glob(".*.aside")]:
        raise LostError(f"it left {left} behind")


def _digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def chaos(kills: int, seed: int, folder: Path) -> Tally:
    """Share *kills* out over the streams and add up what came of them."""
    shares = [kills // len(STREAMS) + (number < kills % len(STREAMS)) for number in range(len(STREAMS))]
    homes = [folder / use for use in STREAMS]
    for home in homes:
        home.mkdir(parents=True)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        seeds = range(seed, seed + len(STREAMS))
        tallies = list(pool.map(stream, STREAMS, shares, seeds, homes))
    return Tally(sum(tally.passed for tally in tallies), sum((tally.failures for tally in tallies), ()))


def main() -> None:
    """Run it from the command line; the last line is the tally."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # two streams on two cores
    print(f"seed {given.seed}")
    with tempfile.TemporaryDirectory() as folder:
        tally = chaos(given.kills, given.seed, Path(folder))
    for failure in tally.failures:
        print(failure)
    print(f"{tally.passed} passed, {len(tally.failures)} failed")
    sys.exit(bool(tally.failures))


if __name__ == "__main__":
    main()
