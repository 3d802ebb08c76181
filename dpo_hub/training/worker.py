"""The process that owns the device for one run: train, measure, sample, write the card.

python -m dpo_hub.training.worker RUN_FOLDER
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from filelock import Timeout

from ..comparison.duet import Duet
from ..comparison.evaluation import measure
from ..comparison.lens import Lens
from ..errors import BusyError, DPOHubError, ModelError, RunError, needing_extra, telling_disk_full
from ..heartbeat import heartbeat
from ..hub.card import render_card
from ..hub.curves import draw_curves
from ..preferences import text_of
from ..run import Run
from ..state import Process
from ..turns import turn
from .callbacks import OnStep
from .memory import is_out_of_memory
from .policy import quiet
from .processes import COUNT, FIRST
from .train import train

with needing_extra("train"):
    import matplotlib.figure  # noqa: F401  # were it missing at the end, the whole training would be lost

log = logging.getLogger("dpo_hub.training.worker")  # not __main__, as which it runs

SAMPLES = 4
LOCK_TIMEOUT = 10.0
"""Seconds to wait for whoever just starts the run, or looks whether it is at work."""


def work(run: Run, on_step: OnStep | None = None) -> Run:
    """Carry *run* to its end and leave everything in its folder; whatever happens, its state says so.

    It waits until the device is free. A run that was begun before goes on from its last good checkpoint.

    Raises:
        DPOHubError: with the reason, which the run's state then has too.
    """
    if not FIRST:  # one of several processes, and another writes to the folder
        train(run)
        return run
    with _alone(run), _logging_to(run.log), _telling_state(run), telling_disk_full(run.path), heartbeat(run):
        run.set_state(replace(run.written_state, worker=Process.of()))
        with turn(run):
            run.claim()
            _finish(run, on_step)
    return run


def _finish(run: Run, on_step: OnStep | None) -> None:
    log.info("training %s on %d pairs", run.recipe.model, run.report["train"])
    trained = train(run, on_step)
    duet = Duet.of(trained.model, trained.tokenizer)
    run.write("evaluation.json", json.dumps(trained.evaluation | _measured(run, duet, trained.margins), indent=2))
    held_out = run.pairs("held_out")[:SAMPLES]
    replies = duet.replies([pair.prompt for pair in held_out])
    samples = [
        {"prompt": text_of(pair.prompt), "chosen": text_of(pair.chosen), **asdict(both)}
        for pair, both in zip(held_out, replies, strict=True)
    ]
    run.write("samples.jsonl", "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples))
    draw_curves(run)
    run.write("README.md", render_card(run))
    run.end("finished")
    log.info("finished: held-out reward accuracy %.3f", trained.evaluation["reward_accuracy"])
    shutil.rmtree(run.path / "checkpoints", ignore_errors=True)  # a finished run is not resumed


def _measured(run: Run, duet: Duet, margins: Sequence[float]) -> dict[str, float]:
    """What the replies say of the policy; nothing where memory does not suffice, as the run is worth more than that."""
    try:
        return measure(Lens(duet.model, duet.tokenizer, run.recipe), duet, run.pairs("held_out"), margins)
    except (ModelError, MemoryError, RuntimeError) as error:
        if not (isinstance(error, ModelError) or is_out_of_memory(error)):
            raise
        log.warning("the replies were not measured: %s Try it again with: dpo-hub evaluate %s", error, run.id)
        return {}


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Hold the run's lock, and clear away what an earlier worker left half done.

    Raises:
        BusyError: another process has the run in hand.
        RunError: it has ended.
    """
    try:
        lock = run.lock.acquire(timeout=LOCK_TIMEOUT)
    except Timeout:
        raise BusyError(f"The run {run.id} is at work already, in another process.") from None
    with lock:
        state = run.written_state
        if state.ended:
            raise RunError(f"The run {run.id} is {state.status}. Take it up again with: dpo-hub resume {run.id}")
        run.tidy()
        yield


@contextmanager
def _telling_state(run: Run) -> Iterator[None]:
    """Leave the reason in the run's state, whatever ends the work early."""
    try:
        yield
    except KeyboardInterrupt:
        if COUNT == 1 or run.stop_asked.exists():  # else another process has died, and its launcher ends the others
            log.info("stopped, as asked")
            run.end("stopped")
        raise
    except DPOHubError as error:
        log.info("failed: %s", error)
        _try_failing(run, str(error))
        raise
    except BaseException as error:
        log.exception("the worker failed")
        _try_failing(run, f"{type(error).__name__}: {error}", expected=False)
        raise


def _try_failing(run: Run, reason: str, *, expected: bool = True) -> None:
    """Write that the run failed. On a full disk that fails too; a run whose worker is gone reads as failed anyway."""
    try:
        run.end("failed", reason, expected=expected)
    except OSError:
        log.error("the state could not be written")


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger("dpo_hub")
    level = package.level
    package.setLevel(logging.INFO)
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
        handler.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Work on the run whose folder is given; a SIGTERM stops it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    quiet()
    try:
        work(Run(parser.parse_args(arguments).run))
    except KeyboardInterrupt:
        sys.exit(130)
    except DPOHubError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, BusyError) else 2)


if __name__ == "__main__":
    main()
