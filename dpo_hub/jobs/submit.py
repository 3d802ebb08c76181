"""Submit a run to Hugging Face Jobs, and resume it there. Needs no torch.

The run's folder and this package go into a private dataset, from which the job downloads them. So no release of the
package is needed, and whatever happens to the job's machine, what it last pushed is safe.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi, JobInfo

from ..errors import DPOHubError, ModelError, PublishError, RecipeError, RunError
from ..hub.account import price, require_readable, require_writable
from ..hub.calls import UnreachableError, explaining_hub_errors
from ..hub.commits import DATASET, commit_once, ensure_repository
from ..hub.package import package_files, requirements
from ..recipe import DEMO_MODEL
from ..runs.base_model import local_path
from ..runs.run import Run
from .mirror import LABEL, PACKAGE, RUN, STOP, get_mirror
from .remote import Job, Remote, locking, sync_locked

IMAGE = "ghcr.io/astral-sh/uv:python3.12-bookworm"
"""The image of `HfApi.run_uv_job`, which is not used itself: it guesses which arguments are local files."""
BOOTSTRAP = """\
import os, sys, zipfile
from huggingface_hub import hf_hub_download
zipfile.ZipFile(hf_hub_download(sys.argv[1], "package.zip", repo_type="dataset")).extractall("dpo_hub_job")
os.environ["PYTHONPATH"] = os.path.abspath("dpo_hub_job")
os.execv(sys.executable, [sys.executable, "-m", "dpo_hub.jobs.job", *sys.argv[1:]])
"""
CARD = """\
---
tags:
- dpo-hub
---
# {id}

A training run of dpo_hub, mirrored from the machine that works on it: its folder is `run/`, and `package.zip` trains
it. Bring it home when it has finished:

    dpo-hub fetch {repo}
"""
HOUR = 3600.0
USUAL, LONGEST, SHORTEST = 2 * HOUR, 24 * HOUR, 60.0
"""A job's time limit in seconds: by default, at most unless more is requested, and at least."""
START_UP, SAFETY = 900.0, 2.0
"""Seconds to get a machine ready, and how many times slower than this one it may be."""
_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def parse_duration(written: str) -> float:
    """Parse a time such as `2h`, `90m`, `3600` or `3600s`.

    Raises:
        RecipeError: it is not a time, or less than a minute.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|)", written.strip().lower())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if seconds < SHORTEST:
        raise RecipeError(f"--timeout is {written!r}; write a time of a minute at least, as in 90m or 2h.")
    return seconds


def time_limit(
    hourly: float, *, timeout: float | None = None, budget: float | None = None, estimate: float | None = None
) -> float:
    """The most seconds that a job may take; a budget is never exceeded.

    Args:
        hourly: the machine's price in US dollars an hour.
        timeout: seconds, if requested.
        budget: US dollars, if limited.
        estimate: seconds that training takes on this machine, if known.
    """
    bought = budget / hourly * HOUR if budget is not None and hourly else math.inf
    if timeout is not None:
        return min(timeout, bought)
    if budget is not None:
        return min(bought, LONGEST)
    return USUAL if estimate is None else min(LONGEST, START_UP + SAFETY * estimate)


def submit(run: Run, remote: Remote, api: HfApi) -> Remote:
    """Send a new *run* to the repository and machine in *remote*, and return its new `Remote`.

    If the Hub refuses it, the run is removed; if it may have arrived, or only starting a job failed, it can be resumed.

    Raises:
        PublishError, ModelError, RunError: something prevents it; the message says what.
    """
    try:
        _require_possible(run, remote, api)
        remote.write(run)
        head = _send(run, remote, api, message="Submit")
    except UnreachableError as error:
        if run.remote:
            raise _mark_resumable(run, error) from error
        run.remove()
        raise
    except DPOHubError:
        run.remove()
        raise
    return _start(run, replace(remote, head=head), api)


def resume(run: Run, api: HfApi, *, budget: float | None = None) -> Remote:
    """Resume *run* in a new job, from the last checkpoint that was pushed, and return its new `Remote`.

    Args:
        run: one that was submitted and has ended early.
        api: the client.
        budget: US dollars for all its jobs together; None leaves it unchanged.

    Raises:
        RunError: it has finished or is running, or its budget pays for less than a minute.
        PublishError: the Hub refuses or does not answer.
    """
    with locking(run):
        if Remote.of(run).head:
            sync_locked(run, api)
        state, remote = run.written_state, Remote.of(run)
        if state.status not in ("stopped", "failed"):
            raise RunError(f"The run {run.id} is {state.status} already. See how it is going: dpo-hub status {run.id}")
        hourly = price(remote.flavor, api).hourly
        remote = replace(remote, hourly=hourly, budget=remote.budget if budget is None else budget)
        _require_time(remote, f"Raise it: dpo-hub resume {run.id} --budget DOLLARS")
        run.set_state(replace(state, status="queued", reason=""))
        try:
            head = _send(run, remote, api, message="Resume")
        except DPOHubError:
            run.set_state(state)
            raise
        return _start(run, replace(remote, head=head), api)


def _send(run: Run, remote: Remote, api: HfApi, *, message: str) -> str:
    """Upload what a job starts from to the repository, and return the commit."""
    with explaining_hub_errors(remote.repo, api):
        ensure_repository(api, remote.repo, kind=DATASET)
        there = get_mirror(api, remote.repo)
        new = f"{RUN}preferences.parquet" not in there.files
        own = ("recipe.json", "state.json", *(("preferences.parquet", "report.json") if new else ()))
        files: dict[str, bytes | Path] = {f"{RUN}{name}": run.path / name for name in own}
        files |= {PACKAGE: _package(run.recipe.model), "README.md": CARD.format(id=run.id, repo=remote.repo).encode()}
        asked = [STOP] if STOP in there.files else []
        return commit_once(api, there.repository, files, message=message, delete=asked)


def _mark_resumable(run: Run, error: Exception) -> UnreachableError:
    """Note in the run's state that it may or may not have arrived, and how to go on; return an error that says so."""
    reason = f"{str(error).partition(' Check the')[0]} Do not submit it again: dpo-hub resume {run.id} goes on with it."
    run.end("stopped", reason)
    return UnreachableError(reason)


def _require_possible(run: Run, remote: Remote, api: HfApi) -> None:
    model = run.recipe.model
    if place := local_path(model):
        raise ModelError(
            f"The base model {place} lies on this machine, and a job cannot see it. Push it to the Hub first "
            "(hf upload), and give its name there."
        )
    _require_time(remote, "Raise --budget, or take a cheaper machine.")
    require_writable(remote.repo, api, kind=DATASET)
    require_readable(model, api)


def _require_time(remote: Remote, what_to_do: str) -> None:
    if remote.seconds_left < SHORTEST:
        raise RunError(
            f"Of the budget of ${remote.budget:,.2f}, ${remote.spent:,.2f} are spent, and less than a minute on "
            f"{remote.flavor} at ${remote.hourly:,.2f} an hour is left. {what_to_do}"
        )


def _package(model: str) -> bytes:
    """The package as one file with reproducible bytes: a hundred small files would be slow to download."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in package_files().items():
            if model == DEMO_MODEL or not name.startswith("dpo_hub/demo/model/"):
                archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _start(run: Run, remote: Remote, api: HfApi) -> Remote:
    """Start a job, which costs money from here on, and note it in the run's folder.

    Raises:
        UnreachableError: the answer was lost, and the job may have begun.
        PublishError: the Hub refuses.
    """
    seconds, asked = int(remote.seconds_left), replace(remote, pending=True)
    asked.write(run)
    try:
        with explaining_hub_errors(remote.repo, api, outcome="so a job may have begun, or not"):
            job = _job(run, remote, seconds, api)
    except UnreachableError as error:
        raise _mark_resumable(run, error) from error
    except PublishError as error:
        remote.write(run)
        reason = f"{error} It waits: dpo-hub resume {run.id}"
        run.end("stopped", reason)
        raise PublishError(reason) from error
    remote = replace(remote, jobs=(*remote.jobs, Job(job.id, seconds, remote.hourly)))
    remote.write(run)
    run.set_state(replace(run.written_state, status="queued", reason=""))
    return remote


def _job(run: Run, remote: Remote, seconds: int, api: HfApi) -> JobInfo:
    needs = [part for line in requirements("train") for part in ("--with", line)]
    return api.run_job(
        image=IMAGE,
        command=["uv", "run", *needs, "python", "-c", BOOTSTRAP, remote.repo, str(remote.push_minutes), str(seconds)],
        env={"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        secrets={"HF_TOKEN": api.token},
        flavor=remote.flavor,
        timeout=seconds,
        name=run.id,
        labels={LABEL: run.id},
        namespace=remote.namespace,
    )
