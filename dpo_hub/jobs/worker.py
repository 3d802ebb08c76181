"""The process that uses the device for one run: train, measure, sample, write the card.

python -m dpo_hub.jobs.worker RUN_FOLDER
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

from ..comparison.evaluation import Measured, measure
from ..comparison.lens import Lens
from ..errors import BusyError, DPOHubError, ModelError, RunError, explaining_disk_full, needing_extra
from ..hub.card import render_card
from ..hub.curves import draw_curves
from ..preferences import text_of
from ..runs.headline import headline_of
from ..runs.heartbeat import heartbeat
from ..runs.queue import holding_device
from ..runs.run import Run
from ..runs.state import Process
from ..training.callbacks import OnStep
from ..training.memory import is_out_of_memory
from ..training.policy import quiet
from ..training.processes import IS_MAIN_PROCESS, WORLD_SIZE
from ..training.stopwatch import Stopwatch
from ..training.train import Trained, train

with needing_extra("train"):
    import matplotlib.figure  # noqa: F401  # fail now: if it were missing at the end, the whole training would be lost

log = logging.getLogger("dpo_hub.jobs.worker")  # not __name__, which is __main__ here

SAMPLES = 4
LOCK_TIMEOUT = 10.0
"""Seconds to wait for a process that is starting the run or checking whether it is running."""


def work(run: Run, on_step: OnStep | None = None) -> Run:
    """Carry *run* through to its end, with all results in its folder; its state always records the outcome.

    It waits until the device is free. A run that was begun before resumes from its last good checkpoint.

    Raises:
        DPOHubError: with the reason, which is then also in the run's state.
    """
    if not IS_MAIN_PROCESS:  # one of several processes; only the first writes to the folder
        train(run)
        return run
    with _locking(run), _logging_to(run.log), _recording_failure(run), explaining_disk_full(run.path), heartbeat(run):
        run.set_state(replace(run.written_state, worker=Process.of()))
        with holding_device(run):
            run.claim()
            _train_and_evaluate(run, on_step)
    return run


def _train_and_evaluate(run: Run, on_step: OnStep | None) -> None:
    log.info("training %s on %d pairs", run.recipe.model, run.report["train"])
    spent = Stopwatch()
    trained = train(run, on_step, spent)
    with spent.timing("replies"):
        measured = _measure_replies(run, trained)
    run.write("evaluation.json", json.dumps(trained.evaluation | measured.figures, indent=2))
    _write_samples(run, measured)
    with spent.timing("card"):
        draw_curves(run)
        run.write("README.md", render_card(run))
    _write_timings(run, spent)
    run.end("finished")
    log.info("finished: %s", headline_of(run).sentence)
    shutil.rmtree(run.path / "checkpoints", ignore_errors=True)  # a finished run is not resumed


def _write_samples(run: Run, measured: Measured) -> None:
    """Save the first of the measured replies, to be shown."""
    samples = [
        {"prompt": text_of(pair.prompt), "chosen": text_of(pair.chosen), **asdict(both)}
        for pair, both in measured.replies[:SAMPLES]
    ]
    run.write("samples.jsonl", "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples))


def _write_timings(run: Run, spent: Stopwatch) -> None:
    """Write to the report what this process spent its time on."""
    seconds = {what: round(took, 2) for what, took in spent.seconds.items()}
    log.info("seconds spent on %s", ", ".join(f"{what} {took:.1f}" for what, took in seconds.items()))
    run.write("report.json", json.dumps(run.report | {"seconds": seconds}, indent=2, ensure_ascii=False))


def _measure_replies(run: Run, trained: Trained) -> Measured:
    """Measure the policy by its replies; nothing if memory runs out, because the run is worth more than that."""
    try:
        lens = Lens(trained.model, trained.tokenizer, run.recipe)
        return measure(lens, trained.pairs["held_out"], trained.margins, trained=trained.pairs["train"])
    except (ModelError, MemoryError, RuntimeError) as error:
        if not (isinstance(error, ModelError) or is_out_of_memory(error)):
            raise
        log.warning("the replies were not measured: %s Try it again with: dpo-hub evaluate %s", error, run.id)
        return Measured({})


@contextmanager
def _locking(run: Run) -> Iterator[None]:
    """Hold the run's lock, and clear away what an earlier worker left unfinished.

    Raises:
        BusyError: another process is working on the run.
        RunError: it has ended.
    """
    try:
        lock = run.lock.acquire(timeout=LOCK_TIMEOUT)
    except Timeout:
        raise BusyError(f"The run {run.id} is already running in another process.") from None
    with lock:
        state = run.written_state
        if state.ended:
            raise RunError(f"The run {run.id} is {state.status}. Take it up again with: dpo-hub resume {run.id}")
        run.tidy()
        yield


@contextmanager
def _recording_failure(run: Run) -> Iterator[None]:
    """Record the reason in the run's state if anything ends the work early."""
    try:
        yield
    except KeyboardInterrupt:
        if (
            WORLD_SIZE == 1 or run.stop_asked.exists()
        ):  # otherwise another process has died, and the launcher ends the rest
            log.info("stopped, as asked")
            run.end("stopped")
        raise
    except DPOHubError as error:
        log.info("failed: %s", error)
        _mark_failed(run, str(error))
        raise
    except BaseException as error:
        log.exception("the worker failed")
        _mark_failed(run, f"{type(error).__name__}: {error}", expected=False)
        raise


def _mark_failed(run: Run, reason: str, *, expected: bool = True) -> None:
    """Record that the run failed. On a full disk that fails too; a run whose worker is gone reads as failed anyway."""
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
    """Work on the run whose folder is given; a SIGTERM stops it just as Ctrl-C does."""
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
