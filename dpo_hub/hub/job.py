"""On a machine of Hugging Face Jobs: bring a run from its repository, see it to its end, push what it leaves.

    python -m dpo_hub.hub.job OWNER/NAME MINUTES

What is not pushed goes with the machine, so it is pushed every few minutes, and once more at the end.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from contextlib import suppress

from huggingface_hub import HfApi
from huggingface_hub.utils.tqdm import disable_progress_bars

from ..errors import DPOHubError, PublishError
from ..launch import start, stop
from ..progress import Log
from ..run import Run, home
from .account import client
from .calls import telling
from .mirror import STOP, look, pull, push

log = logging.getLogger("dpo_hub.hub.job")  # not __main__, as which it runs

KEEP_GOING = 2
"""Times that a worker which dies is followed by another."""
LOOK = 10.0
"""Seconds between two looks at whether somebody asks for the end, at most."""
POLL = 0.2
STOP_PATIENCE = 20.0
"""Seconds that a worker gets to finish its step and leave a checkpoint."""
PUSH_PATIENCE, PUSH_AGAIN = 900.0, 15.0
"""Seconds that the Hub may be away when all is done, and between two tries."""


def bring(api: HfApi, repo_id: str) -> Run:
    """Put the run that is mirrored in *repo_id* among the runs of this machine."""
    path = home() / "runs" / repo_id.partition("/")[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    with telling(repo_id, api):
        pull(api, look(api, repo_id), path)
    return Run(path)


def see_through(api: HfApi, repo_id: str, run: Run, *, every: float) -> None:
    """Start *run*, show its log, and push it *every* so many seconds, until it has ended or somebody wants it to end.

    Raises:
        PublishError: what it left in the end could not be pushed.
    """
    said, pushed, looked, told = Log(run.log, from_end=True), 0.0, 0.0, ""
    with suppress(KeyboardInterrupt):
        start(run, keep_going=KEEP_GOING)
        while not (state := run.state).ended:
            print(said.news(), end="", flush=True)
            now = time.monotonic()
            if now - looked >= min(LOOK, every):
                looked, due = now, state.status != told or now - pushed >= every
                if _push(api, repo_id, run, due=due):
                    break
                pushed, told = (now, state.status) if due else (pushed, told)
            time.sleep(POLL)
    stop(run, patience=STOP_PATIENCE)
    print(said.news(), end="", flush=True)
    _push_last(api, repo_id, run)


def _push(api: HfApi, repo_id: str, run: Run, *, due: bool) -> bool:
    """Push what there is, if that is *due*, and say whether somebody wants the run to end. Neither has to succeed."""
    try:
        with telling(repo_id, api):
            there = look(api, repo_id)
            if due and STOP not in there.files:
                push(api, run, there)
            return STOP in there.files
    except (PublishError, OSError) as error:
        log.warning("not pushed this time: %s", error)
        return False


def _push_last(api: HfApi, repo_id: str, run: Run) -> None:
    end = time.monotonic() + PUSH_PATIENCE
    while True:
        try:
            with telling(repo_id, api):
                push(api, run, look(api, repo_id))
            return
        except (PublishError, OSError) as error:
            if time.monotonic() > end:
                raise
            log.warning("trying again in %.0f s: %s", PUSH_AGAIN, error)
            time.sleep(PUSH_AGAIN)


def main() -> None:
    """See the run through whose repository is given; a SIGTERM stops it in good order."""

    def interrupt(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repo")
    parser.add_argument("minutes", type=float)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    disable_progress_bars()
    api = client()
    try:
        run = bring(api, given.repo)
        signal.signal(signal.SIGTERM, interrupt)
        see_through(api, given.repo, run, every=60 * given.minutes)
    except DPOHubError as error:
        sys.exit(str(error))
    sys.exit(run.state.status == "failed")


if __name__ == "__main__":
    main()
