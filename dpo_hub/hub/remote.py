"""A run that trains on Hugging Face Jobs, as it is seen from here: how it goes, its log, its end. Needs no torch."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from huggingface_hub import HfApi, JobInfo
from huggingface_hub.utils.tqdm import disable_progress_bars

from ..errors import DPOHubError, RunError
from ..run import REMOTE, Run, home
from ..state import State
from .account import Token, client, require_name
from .calls import patiently, telling
from .commits import DATASET
from .mirror import RUN, SMALL, STOP, Mirror, look, pull, read

log = logging.getLogger(__name__)

OVER = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
"""Stages in which a job does nothing any more."""
STOP_PATIENCE, CANCEL_PATIENCE = 90.0, 15.0
"""Seconds that a job gets to push its last checkpoint, and to be gone."""
SYNC_PATIENCE = 10.0
"""Seconds that a list of runs waits for the Hub."""
POLL = 1.0


@dataclass(frozen=True)
class Job:
    """A job that worked on the run: the seconds it may take and, so far, took."""

    id: str
    timeout: int
    seconds: int = 0


@dataclass(frozen=True)
class Remote:
    """Where and at what price a run trains; kept beside it in `remote.json`.

    `timeout` are the seconds that a job may take at most, `budget` the US dollars that all of them may cost together,
    and `head` the newest commit of the repository that was seen.
    """

    repo: str
    flavor: str
    hourly: float
    timeout: float
    budget: float | None = None
    push_minutes: float = 3.0
    jobs: tuple[Job, ...] = ()
    head: str = ""

    @classmethod
    def of(cls, run: Run) -> Remote:
        """What is known of *run*.

        Raises:
            RunError: it trains here.
        """
        if not (found := run.remote):
            raise RunError(f"The run {run.id} was not submitted; all of it is here: {run.path}")
        return cls(**found | {"jobs": tuple(Job(**job) for job in found["jobs"])})

    def write(self, run: Run) -> None:
        run.write(REMOTE, json.dumps(asdict(self), indent=2))

    @property
    def namespace(self) -> str:
        return self.repo.partition("/")[0]

    @property
    def spent(self) -> float:
        """US dollars until now, as far as is known."""
        return sum(job.seconds for job in self.jobs) * self.hourly / 3600

    @property
    def seconds_left(self) -> float:
        """How long the next job may take."""
        if self.budget is None or not self.hourly:
            return self.timeout
        return min(self.timeout, (self.budget - self.spent) / self.hourly * 3600)


def connect(token: Token = None) -> HfApi:
    disable_progress_bars()
    return client(token)


def sync(run: Run, api: HfApi) -> None:
    """Bring what says how *run* goes, and let its state be what its job makes of it.

    Raises:
        PublishError: the Hub says no, or nothing.
    """
    remote = Remote.of(run)
    if not remote.jobs:
        run.end("stopped", run.written_state.reason or f"It has no job. dpo-hub resume {run.id} starts one.")
        return
    with telling(remote.repo, api, outcome="so this is how it stood before"):
        job = api.inspect_job(job_id=remote.jobs[-1].id, namespace=remote.namespace)  # at once: others may wait
        over = job.status.stage in OVER
        there = look(api, remote.repo)  # after the job, so that nothing which it pushed at its end is missed
        if there.repository.head != remote.head:
            pull(api, there, run.path, *SMALL)
            if run.last_metrics:
                os.utime(run.path / "metrics.jsonl", (there.changed, there.changed))
    state = run.written_state
    head = "" if state.ended and not over else there.repository.head  # else it is read again when the job has gone
    last = replace(remote.jobs[-1], seconds=_took(job, remote.jobs[-1].timeout))
    replace(remote, head=head, jobs=(*remote.jobs[:-1], last)).write(run)
    run.beat()
    run.write("state.json", json.dumps(asdict(_state(run, state, job, there))))


def _took(job: JobInfo, most: int) -> int:
    """Seconds that are to be paid for; where a job has begun and they are not known, all that it may take."""
    if job.durations and job.durations.running_secs is not None:
        return job.durations.running_secs
    return most if job.started_at else 0


def _state(run: Run, state: State, job: JobInfo, there: Mirror) -> State:
    """What becomes of the *state* that was pushed, under a job that stands so."""
    state, stage = replace(state, worker=None, keeper=None), job.status.stage
    if stage not in OVER:
        return replace(state, status="queued" if stage == "SCHEDULING" else "running")
    said = f"Its job ended before the run did ({stage}{f': {job.status.message}' if job.status.message else ''})."
    if state.ended:
        return replace(state, reason=state.reason or said) if state.status == "stopped" and stage == "ERROR" else state
    where = f"from step {there.step}" if there.step else "from the beginning"
    status = "stopped" if stage == "CANCELED" else "failed"
    return replace(state, status=status, reason=f"{said} dpo-hub resume {run.id} goes on {where}.")


def _inspect(api: HfApi, remote: Remote) -> JobInfo:
    return patiently(lambda: api.inspect_job(job_id=remote.jobs[-1].id, namespace=remote.namespace))


def sync_all(runs: Sequence[Run]) -> None:
    """Bring how all *runs* go, side by side, and in no more than a few seconds; what cannot be had is noted."""
    api, missed = connect(), {run.id: "The Hub is slow to answer." for run in runs}

    def bring(run: Run) -> None:
        try:
            sync(run, api)
            del missed[run.id]
        except DPOHubError as error:
            missed[run.id] = str(error)

    threads = [threading.Thread(target=bring, args=(run,), daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    end = time.monotonic() + SYNC_PATIENCE
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    for run_id, why in list(missed.items()):
        log.warning("%s is shown as it stood before. %s", run_id, why)


def lines(run: Run, api: HfApi, *, follow: bool) -> Iterator[str]:
    """What the run's last job said, and with *follow* goes on to say until it ends."""
    remote = Remote.of(run)
    if remote.jobs:
        with telling(remote.repo, api, outcome="so its log is not known"):
            yield from api.fetch_job_logs(job_id=remote.jobs[-1].id, namespace=remote.namespace, follow=follow)


def stop(run: Run, api: HfApi) -> None:
    """Ask the run's job to push its last checkpoint and go; one that is slow, or has not begun, is cancelled.

    Raises:
        PublishError: the Hub says no, or nothing.
    """
    remote = Remote.of(run)
    with telling(remote.repo, api, outcome="so it may still be at work"):
        if _inspect(api, remote).status.stage == "RUNNING":
            patiently(
                lambda: api.upload_file(
                    path_or_fileobj=b"stop\n",
                    path_in_repo=STOP,
                    repo_id=remote.repo,
                    repo_type=DATASET,
                    commit_message="Stop",
                )
            )
        if not _is_over(api, remote, within=STOP_PATIENCE):
            patiently(lambda: api.cancel_job(job_id=remote.jobs[-1].id, namespace=remote.namespace))
            _is_over(api, remote, within=CANCEL_PATIENCE)
    sync(run, api)


def _is_over(api: HfApi, remote: Remote, *, within: float) -> bool:
    """Wait for the job's end, unless it has not begun, and say whether it came."""
    end = time.monotonic() + within
    while (stage := _inspect(api, remote).status.stage) not in OVER:
        if stage == "SCHEDULING" or time.monotonic() > end:
            return False
        time.sleep(POLL)
    return True


def fetch(name: str, api: HfApi) -> Run:
    """Bring a finished run home whole: one that was submitted here, or that of the repository *name*.

    Raises:
        RunError: there is no such run, or it has not finished.
        PublishError: the Hub says no, or what arrived is not what it has.
    """
    if "/" in name and not Path(name).is_dir():
        require_name(name)
        repo, path = name, home() / "runs" / name.partition("/")[2]
    else:
        run = Run.open(name)
        repo, path = Remote.of(run).repo, run.path
    with telling(repo, api, outcome="so nothing was fetched"):
        there = look(api, repo)
        if f"{RUN}state.json" not in there.files:
            raise RunError(f"There is no run in {repo}. Name a repository that dpo-hub submit has made.")
        state = State.of(json.loads(read(api, there, "state.json")))
        if state.status != "finished":
            raise RunError(f"The run in {repo} is {state.status}, not finished. {state.reason}".strip())
        path.parent.mkdir(parents=True, exist_ok=True)
        pull(api, there, path)
    return Run(path)
