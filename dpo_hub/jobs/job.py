"""On a Hugging Face Jobs machine: download a run from its repository, train it to its end, and push the results.

    python -m dpo_hub.jobs.job OWNER/NAME MINUTES SECONDS

What is not pushed is lost with the machine, so it pushes every few minutes, and once more before the time is up.
"""

from __future__ import annotations

import argparse
import logging
import math
import signal
import sys
import time
from threading import Event

from huggingface_hub import HfApi

from ..errors import DPOHubError, PublishError
from ..hub.account import client
from ..hub.calls import UnreachableError, explaining_hub_errors, with_retries
from ..runs.launch import start, stop
from ..runs.progress import Log
from ..runs.run import Run, home
from .mirror import LABEL, STOP, get_mirror, pull, push

log = logging.getLogger("dpo_hub.jobs.job")  # not __name__, which is __main__ here

MAX_RESTARTS = 2
"""How many times a worker that dies is replaced."""
LOOK = 10.0
"""The most seconds between two checks whether somebody has asked the run to stop."""
POLL = 0.2
STOP_PATIENCE = 20.0
"""Seconds that a worker has to finish its step and save a checkpoint."""
RESERVE = 60.0
"""The most seconds of a job's time that are reserved for stopping and pushing."""
PUSH_PATIENCE, REFUSED_PATIENCE, PUSH_AGAIN = 900.0, 45.0, 15.0
"""Seconds to keep retrying the last push if the Hub is unreachable, or if it refuses, and between two tries."""


def download_run(api: HfApi, repo_id: str) -> Run:
    """Download the run that is mirrored in *repo_id* into this machine's runs."""
    path = home() / "runs" / repo_id.partition("/")[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    with explaining_hub_errors(repo_id, api):
        pull(api, get_mirror(api, repo_id), path)
    return Run(path)


def time_left(api: HfApi, repo_id: str, seconds: float) -> float:
    """How long the run's newest job may still work, of its *seconds*, so that time is left to push."""
    owner, _, name = repo_id.partition("/")
    seconds -= min(RESERVE, 0.1 * seconds)
    try:
        with explaining_hub_errors(repo_id, api):
            labels = {LABEL: name}
            job = with_retries(lambda: next(iter(api.list_jobs(labels=labels, namespace=owner)), None))
    except PublishError as error:
        log.warning("when the job began is not known: %s", error)
        return seconds
    began = (job.started_at or job.created_at) if job else None
    return seconds - (time.time() - began.timestamp()) if began else seconds


def supervise(  # noqa: PLR0913  # what, where, and until when
    api: HfApi, repo_id: str, run: Run, *, every: float, left: float = math.inf, stop_requested: Event | None = None
) -> None:
    """Start *run* and show its log, until it has finally ended, somebody asks it to stop, or the time is up.

    Args:
        api: the client.
        repo_id: where it is mirrored.
        run: a run that no other process works on.
        every: seconds between two pushes.
        left: seconds that remain.
        stop_requested: is set when this machine is to be released.

    Raises:
        PublishError, OSError: the final state could not be pushed.
    """
    until = time.monotonic() + left
    said, pushed, looked, pushed_status = Log(run.log, from_end=True), 0.0, 0.0, ""
    keeper = start(run, keep_going=MAX_RESTARTS)
    while keeper.poll() is None and time.monotonic() < until and not (stop_requested and stop_requested.is_set()):
        print(said.news(), end="", flush=True)
        now, status = time.monotonic(), run.state.status
        if now - looked >= min(LOOK, every):
            looked, due = now, status != pushed_status or now - pushed >= every
            if _push(api, repo_id, run, due=due):
                break
            pushed, pushed_status = (now, status) if due else (pushed, pushed_status)
        time.sleep(POLL)
    stop(run, patience=STOP_PATIENCE)
    if run.state.status == "stopped" and time.monotonic() >= until:
        run.end("stopped", "The time of its job was up.")
    print(said.news(), end="", flush=True)
    _push_last(api, repo_id, run)


def _push(api: HfApi, repo_id: str, run: Run, *, due: bool) -> bool:
    """Push the run's files if *due*, and return whether somebody asked the run to stop. Failures are only logged."""
    try:
        with explaining_hub_errors(repo_id, api):
            there = get_mirror(api, repo_id)
            if due and STOP not in there.files:
                push(api, run, there)
            return STOP in there.files
    except (PublishError, OSError) as error:
        log.warning("not pushed this time: %s", error)
        return False


def _push_last(api: HfApi, repo_id: str, run: Run) -> None:
    began = time.monotonic()
    while True:
        try:
            with explaining_hub_errors(repo_id, api):
                push(api, run, get_mirror(api, repo_id))
            return
        except (PublishError, OSError) as error:
            patience = PUSH_PATIENCE if isinstance(error, UnreachableError) else REFUSED_PATIENCE
            if time.monotonic() - began > patience:
                raise
            log.warning("trying again in %.0f s: %s", PUSH_AGAIN, error)
            time.sleep(PUSH_AGAIN)


def main() -> None:
    """Train the run whose repository is given; a SIGTERM stops it cleanly."""
    stop_requested = Event()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repo")
    parser.add_argument("minutes", type=float)
    parser.add_argument("seconds", type=float)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    api = client()
    try:
        run = download_run(api, given.repo)
        signal.signal(signal.SIGTERM, lambda *_: stop_requested.set())
        left = time_left(api, given.repo, given.seconds)
        supervise(api, given.repo, run, every=60 * given.minutes, left=left, stop_requested=stop_requested)
    except DPOHubError as error:
        sys.exit(str(error))
    sys.exit(run.state.status == "failed")


if __name__ == "__main__":
    main()
