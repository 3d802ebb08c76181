"""A run that trains on Hugging Face Jobs, as seen from here: its progress, its log, its end. Needs no torch."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout
from huggingface_hub import HfApi, JobInfo
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils.tqdm import disable_progress_bars

from ..errors import BusyError, DPOHubError, RunError
from ..hub.account import Token, client, require_name
from ..hub.calls import explaining_hub_errors, with_retries
from ..hub.commits import DATASET
from ..runs.run import REMOTE, Run, home
from ..runs.state import State
from .mirror import LABEL, PROGRESS_FILES, RUN, STOP, Mirror, get_mirror, pull, read_file

log = logging.getLogger(__name__)

DIED = "Its job ended before the run did"
"""The beginning of a run's reason when its job gave none."""
ENDED_STAGES = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
"""Stages in which a job has ended."""
STOP_PATIENCE, CANCEL_PATIENCE = 90.0, 15.0
"""Seconds that a job has to push its last checkpoint and, once cancelled, to end."""
SYNC_PATIENCE = 10.0
"""Seconds that a list of runs waits for the Hub, and that a command waits for a run's lock."""
POLL = 1.0


@dataclass(frozen=True)
class Job:
    """A job that worked on the run: its time limit and time so far, in seconds, and its price in US dollars an hour."""

    id: str
    timeout: int
    hourly: float
    seconds: int = 0

    @property
    def cost(self) -> float:
        """In US dollars, billed by the minute."""
        return math.ceil(self.seconds / 60) * self.hourly / 60


@dataclass(frozen=True)
class Remote:
    """Where and at what price a run trains; kept in its folder as `remote.json`.

    `timeout` is the most seconds that a job may take, `budget` the most US dollars that all jobs together may cost, and
    `head` the newest commit of the repository that was seen. `pending` is set while a job was requested and it is not
    known whether it began.
    """

    repo: str
    flavor: str
    hourly: float
    timeout: float
    budget: float | None = None
    push_minutes: float = 3.0
    jobs: tuple[Job, ...] = ()
    head: str = ""
    pending: bool = False

    @classmethod
    def of(cls, run: Run) -> Remote:
        """The record of *run*, from its `remote.json`.

        Raises:
            RunError: it trains on this machine.
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
        """US dollars spent so far, as far as is known."""
        return sum(job.cost for job in self.jobs)

    @property
    def seconds_left(self) -> float:
        """Seconds that the next job may take."""
        if self.budget is None or not self.hourly:
            return self.timeout
        return min(self.timeout, (self.budget - self.spent) / self.hourly * 3600)


def connect(token: Token = None) -> HfApi:
    disable_progress_bars()
    return client(token)


@contextmanager
def locking(run: Run) -> Iterator[None]:
    """Keep other commands from changing the local record of *run* meanwhile.

    Raises:
        BusyError: another command keeps the lock for too long.
    """
    try:
        with FileLock(run.path / ".remote.lock").acquire(timeout=SYNC_PATIENCE):
            yield
    except Timeout:
        raise BusyError(f"Another command is updating {run.id} right now. Try again in a moment.") from None


def sync(run: Run, api: HfApi) -> None:
    """Download the files that show the progress of *run*, and update its state from its job.

    Raises:
        BusyError: another command is doing so.
        PublishError: the Hub refuses or does not answer.
    """
    with locking(run):
        sync_locked(run, api)


def sync_locked(run: Run, api: HfApi) -> None:
    """As `sync`, for a caller that already holds the run's lock."""
    remote = Remote.of(run)
    with explaining_hub_errors(remote.repo, api, outcome="so this is how it stood before"):
        if remote.pending or not remote.jobs:
            remote = _with_unknown_jobs(run, remote, api)
            remote.write(run)
        if not remote.jobs:
            run.end("stopped", run.written_state.reason or f"It has no job. dpo-hub resume {run.id} starts one.")
            return
        job = inspect(api, remote)
        over = stage_of(job) in ENDED_STAGES
        there = get_mirror(api, remote.repo)  # after the job, so that nothing it pushed at its end is missed
        if there.repository.head != remote.head:
            pull(api, there, run.path, *PROGRESS_FILES)
            if run.last_metrics:
                os.utime(run.path / "metrics.jsonl", (there.changed, there.changed))
    state = run.written_state
    head = "" if state.ended and not over else there.repository.head  # empty: it is read again when the job has ended
    last = replace(remote.jobs[-1], seconds=billed_seconds(job, remote.jobs[-1].timeout))
    replace(remote, head=head, jobs=(*remote.jobs[:-1], last)).write(run)
    run.beat()
    run.write("state.json", json.dumps(asdict(_state(run, state, job, there))))


def _with_unknown_jobs(run: Run, remote: Remote, api: HfApi) -> Remote:
    """*remote* with the run's jobs that only the Hub knows, because the answer to the request was lost."""
    known = {job.id for job in remote.jobs}
    listed = with_retries(lambda: list(api.list_jobs(labels={LABEL: run.id}, namespace=remote.namespace)))
    found = [job for job in listed if job.id not in known]
    seconds = int(remote.seconds_left)
    new = [Job(job.id, seconds, remote.hourly, billed_seconds(job, seconds)) for job in reversed(found)]
    return replace(remote, jobs=(*remote.jobs, *new), pending=remote.pending and not new)


def inspect(api: HfApi, remote: Remote) -> JobInfo | None:
    """The status of the run's last job; None if the Hub no longer knows it."""
    try:
        return with_retries(lambda: api.inspect_job(job_id=remote.jobs[-1].id, namespace=remote.namespace))
    except HfHubHTTPError as error:
        if error.response.status_code != 404:
            raise
        return None


def stage_of(job: JobInfo | None) -> str:
    return str(job.status.stage) if job else "DELETED"


def billed_seconds(job: JobInfo | None, limit: int) -> int:
    """Seconds that are billed; if a job has begun and they are not known, the *limit* of its time."""
    if job and job.durations and job.durations.running_secs is not None:
        return job.durations.running_secs
    return 0 if stage_of(job) == "SCHEDULING" else limit


def _state(run: Run, state: State, job: JobInfo | None, there: Mirror) -> State:
    """The state of the run, given the *state* that was pushed and its *job*."""
    state, stage = replace(state, worker=None, keeper=None), stage_of(job)
    if stage not in ENDED_STAGES:
        return replace(state, status="queued" if stage == "SCHEDULING" else "running")
    message = job.status.message if job else None
    said = f"{DIED} ({stage}{f': {message}' if message else ''})."
    if state.ended:
        return replace(state, reason=state.reason or said) if state.status == "stopped" and stage == "ERROR" else state
    where = f"from step {there.step}" if there.step else "from the beginning"
    status = "stopped" if stage == "CANCELED" else "failed"
    return replace(state, status=status, reason=f"{said} dpo-hub resume {run.id} goes on {where}.")


def sync_all(runs: Sequence[Run]) -> None:
    """Sync all *runs* in parallel, for a few seconds at most; failures are logged."""
    errors = {run.id: "The Hub is slow to answer." for run in runs}

    def sync_one(run: Run) -> None:
        try:
            sync(run, connect())
            del errors[run.id]
        except (DPOHubError, OSError) as error:
            errors[run.id] = str(error)

    threads = [threading.Thread(target=sync_one, args=(run,), daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    end = time.monotonic() + SYNC_PATIENCE
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    for run_id, why in list(errors.items()):
        log.warning("%s is shown as it stood before. %s", run_id, why)


def log_lines(run: Run, api: HfApi, *, follow: bool) -> Iterator[str]:
    """The log of the run's last job; with *follow*, until the job ends."""
    remote = Remote.of(run)
    if remote.jobs:
        with explaining_hub_errors(remote.repo, api, outcome="so its log is not known"):
            yield from api.fetch_job_logs(job_id=remote.jobs[-1].id, namespace=remote.namespace, follow=follow)


def stop(run: Run, api: HfApi) -> None:
    """Ask the run's job to push its last checkpoint and end; one that is slow, or has not begun, is cancelled.

    Raises:
        PublishError: the Hub refuses or does not answer.
    """
    sync(run, api)
    remote = Remote.of(run)
    if run.written_state.ended:
        return
    with explaining_hub_errors(remote.repo, api, outcome="so it may still be running"):
        if stage_of(inspect(api, remote)) == "RUNNING":
            with_retries(
                lambda: api.upload_file(
                    path_or_fileobj=b"stop\n",
                    path_in_repo=STOP,
                    repo_id=remote.repo,
                    repo_type=DATASET,
                    commit_message="Stop",
                )
            )
        if not _wait_for_end(api, remote, within=STOP_PATIENCE):
            with_retries(lambda: api.cancel_job(job_id=remote.jobs[-1].id, namespace=remote.namespace))
            _wait_for_end(api, remote, within=CANCEL_PATIENCE)
    sync(run, api)


def _wait_for_end(api: HfApi, remote: Remote, *, within: float) -> bool:
    """Wait for the job to end, unless it has not begun, and return whether it has."""
    end = time.monotonic() + within
    while (stage := stage_of(inspect(api, remote))) not in ENDED_STAGES:
        if stage == "SCHEDULING" or time.monotonic() > end:
            return False
        time.sleep(POLL)
    return True


def fetch(name: str, api: HfApi) -> Run:
    """Download a complete finished run: one that was submitted here, or the one in the repository *name*.

    Raises:
        RunError: there is no such run, or it has not finished.
        PublishError: the Hub refuses or does not answer, or a downloaded file is not what the Hub has.
    """
    if "/" in name and not Path(name).is_dir():
        require_name(name)
        repo, path = name, home() / "runs" / name.partition("/")[2]
        if path.exists() and Run(path).remote.get("repo", repo) != repo:
            raise RunError(f"There is another run in {path}. Remove it, or set DPO_HUB_HOME to another folder.")
    else:
        run = Run.open(name)
        repo, path = Remote.of(run).repo, run.path
    if (path / "adapter").is_dir() and Run(path).written_state.status == "finished":
        return Run(path)  # with any edits made here since
    with explaining_hub_errors(repo, api, outcome="so nothing was fetched"):
        there = get_mirror(api, repo)
        if f"{RUN}state.json" not in there.files:
            raise RunError(f"There is no run in {repo}. Name a repository that dpo-hub submit has made.")
        state = State.of(json.loads(read_file(api, there, "state.json")))
        if state.status != "finished":
            raise RunError(f"The run in {repo} is {state.status}, not finished. {state.reason}".strip())
        path.parent.mkdir(parents=True, exist_ok=True)
        pull(api, there, path)
    return Run(path)
