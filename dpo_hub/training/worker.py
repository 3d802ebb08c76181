"""The process that owns the device for one run: train, measure, sample, write the card.

python -m dpo_hub.training.worker RUN_FOLDER
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from ..comparison.duet import Duet
from ..errors import DPOHubError, RunError
from ..hub.card import render_card
from ..preferences import text_of
from ..run import Run, State
from .policy import quiet
from .trainer import OnStep, train

log = logging.getLogger(__name__)

SAMPLES = 4


def work(run: Run, on_step: OnStep | None = None) -> Run:
    """Carry *run* to its end and leave everything in its folder; whatever happens, its state says so.

    Raises:
        DPOHubError: with the reason, which the run's state then has too.
    """
    state = run.state
    if state.status != "queued" and (state.status, state.pid) != ("running", os.getpid()):
        raise RunError(f"The run {run.id} is {state.status}; only a new run can be worked on. Make another.")
    run.claim()
    with _logging_to(run.log), _telling_state(run):
        log.info("training %s on %d pairs", run.recipe.model, run.report["train"])
        trained = train(run, on_step)
        run.write("evaluation.json", json.dumps(trained.evaluation, indent=2))
        held_out = run.pairs("held_out")[:SAMPLES]
        replies = Duet(trained.model, trained.tokenizer).replies([pair.prompt for pair in held_out])
        samples = [
            {"prompt": text_of(pair.prompt), "chosen": text_of(pair.chosen), **asdict(both)}
            for pair, both in zip(held_out, replies, strict=True)
        ]
        run.write("samples.jsonl", "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples))
        run.write("README.md", render_card(run))
        run.set_state(State("finished"))
        log.info("finished: held-out reward accuracy %.3f", trained.evaluation["reward_accuracy"])
    return run


@contextmanager
def _telling_state(run: Run) -> Iterator[None]:
    """Leave the reason in the run's state, whatever ends the work early."""
    try:
        yield
    except KeyboardInterrupt:
        run.set_state(State("stopped", "Stopped before the end."))
        log.warning("stopped before the end; what there is stays in %s", run.path)
        raise
    except DPOHubError as error:
        log.info("failed: %s", error)
        _try_failing(run, str(error))
        raise
    except BaseException as error:
        log.exception("the worker failed")
        _try_failing(run, f"{type(error).__name__}: {error}")
        raise


def _try_failing(run: Run, reason: str) -> None:
    """Write that the run failed. On a full disk that fails too; a run whose worker is gone reads as failed anyway."""
    try:
        run.set_state(State("failed", reason))
    except OSError:
        log.error("the state could not be written")


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger("dpo_hub")
    package.setLevel(logging.INFO)
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()


def main() -> None:
    """Work on the run whose folder is given; a SIGTERM stops it as Ctrl-C does."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    quiet()
    try:
        work(Run.open(parser.parse_args().run))
    except KeyboardInterrupt:
        sys.exit(130)
    except DPOHubError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
