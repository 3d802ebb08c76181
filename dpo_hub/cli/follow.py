"""Following a run from a terminal: starts it, shows its progress, and reports how it ended."""

from __future__ import annotations

import sys
import time

from ..errors import RunError
from ..runs.headline import accuracy_interval, headline_of
from ..runs.health import diagnose
from ..runs.launch import start
from ..runs.launch import stop as stop_run
from ..runs.progress import Log, progress
from ..runs.run import Run
from ..runs.state import ENDED
from .output import next_steps, print_findings, progress_bar

POLL = 0.3
"""Seconds between two checks of a run's folder."""
SOON = 2.0
"""Seconds in the queue that are not worth reporting."""


def start_and_follow(run: Run, *, detach: bool, keep_going: int) -> None:
    """Start *run* and, unless *detach*, follow it to its end. Ctrl-C stops it and keeps a checkpoint.

    Raises:
        RunError: it cannot be started, or has failed.
    """
    start(run, keep_going=keep_going)
    if detach:
        print(f"Started {run.id}.\n{next_steps(run, 'running')}")
        return
    try:
        follow(run)
    except KeyboardInterrupt:
        print("\nStopping …", file=sys.stderr)
        stop_run(run)
        print_end(run)
        sys.exit(130)
    print_end(run)


def print_end(run: Run) -> None:
    state = run.state
    if state.status == "failed":
        again = "" if state.expected else f" Go on from its last checkpoint: dpo-hub resume {run.id}"
        raise RunError(f"{state.reason}{again}")
    if state.status == "finished":
        print(headline_of(run).sentence)
        measured, (low, high) = run.evaluation, accuracy_interval(run.evaluation)
        print(
            f"Held-out reward accuracy {measured['reward_accuracy']:.1%} (95% interval {low:.0%} to {high:.0%}) over "
            f"{measured['pairs']} pairs, margin {measured['margin']:.2f}."
        )
        if told := run.report.get("auto_stop"):
            print(f"Ended at step {told['ended']} of {told['steps']}; the adapter is that of step {told['kept']}.")
        print_findings([finding for finding in diagnose(run) if finding.severity != "low"])
    else:
        print(f"{run.id}: {progress(run).sentence}")
    print(f"Run folder: {run.path}\n{next_steps(run, state.status)}")


def follow(run: Run) -> None:
    """Show the progress of *run* until it has ended, and print the warnings from its log."""
    seen, told, began = Log(run.log, from_end=True), "", time.monotonic()
    with progress_bar(run.recipe.model) as show:
        while (current := progress(run)).status not in ENDED:
            for line in seen.news().splitlines():
                if " WARNING " in line:
                    print(f"note: {line.partition(' WARNING ')[2]}", file=sys.stderr)
            last = run.last_metrics
            if current.status == "queued" and current.sentence != told and time.monotonic() - began > SOON:
                print(told := current.sentence, file=sys.stderr)
            if last and current.steps:
                show(last, current.steps)
            time.sleep(POLL)
