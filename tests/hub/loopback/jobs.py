"""Jobs that really run: each a process of this machine that knows nothing of it but Python and this Hub."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from .account import MACHINES
from .state import Hub, Refusal, require_writer

GRACE = 20.0
"""Seconds between SIGTERM and SIGKILL."""


@dataclass
class Job:
    """A job and its process; *spec* is what was asked for, without the values of its secrets."""

    id: str
    owner: str
    spec: dict[str, Any]
    secrets: dict[str, str]
    endpoint: str
    created: float = field(default_factory=time.time)
    started: float = 0.0
    ended: float = 0.0
    stage: str = "SCHEDULING"
    message: str | None = None
    said: list[tuple[float, str]] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None
    asked_to_end: str = ""
    """The stage that it ends in, where somebody or the time limit ended it."""

    def run(self) -> None:
        """Run the command to its end, or to that of its time, and leave nothing of it."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as machine:
            for folder in ("work", "hf", "home"):
                Path(machine, folder).mkdir()
            environment = self.spec["environment"] | self.secrets | self._machine(machine)
            command = [sys.executable, *_after_uv(self.spec["command"])]
            self.process = subprocess.Popen(
                command,
                cwd=f"{machine}/work",
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.started, self.stage = time.time(), "RUNNING"
            timer = threading.Timer(self.spec.get("timeoutSeconds", 1800), self.end, ("ERROR", "Job timeout"))
            timer.start()
            assert self.process.stdout is not None
            for line in self.process.stdout:
                self.said.append((time.time(), line.rstrip("\n")))
            code = self.process.wait()
            self.process.stdout.close()
            timer.cancel()
            self.kill()
        self.ended = time.time()
        if not self.asked_to_end and code:
            self.message = f"Job failed with exit code: {code if code > 0 else 128 - code}"
        self.stage = self.asked_to_end or ("ERROR" if code else "COMPLETED")

    def _machine(self, folder: str) -> dict[str, str]:
        own = {"HF_HOME": f"{folder}/hf", "DPO_HUB_HOME": f"{folder}/home", "HF_HUB_DISABLE_XET": "1"}
        system = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "HOME": folder}
        return own | system | {"HF_ENDPOINT": self.endpoint, "JOB_ID": self.id}

    def end(self, stage: str, message: str | None = None) -> None:
        """Ask the process to end, and kill all of them after a while."""
        self.asked_to_end, self.message = stage, message
        if self.process and self.process.poll() is None:
            self.process.terminate()
            killer = threading.Timer(GRACE, self.kill)
            killer.daemon = True
            killer.start()

    def kill(self) -> None:
        """Kill every process of the job, those in sessions of their own too; once, and again for those just born."""
        while victims := self.processes():
            for victim in victims:
                with suppress(psutil.NoSuchProcess):
                    victim.send_signal(signal.SIGKILL)
            time.sleep(0.01)

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get("JOB_ID") == self.id and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    @property
    def over(self) -> bool:
        return self.stage not in ("SCHEDULING", "RUNNING")

    def shown(self) -> dict[str, Any]:
        """What the Hub tells of it."""
        now = self.ended or time.time()
        durations = {
            "schedulingSecs": round((self.started or now) - self.created),
            "runningSecs": round(now - self.started) if self.started else None,
            "totalSecs": round(now - self.created),
        }
        times = {"createdAt": self.created, "startedAt": self.started, "finishedAt": self.ended}
        return {
            **self.spec,
            **{name: _iso(at) if at else None for name, at in times.items()},
            "id": self.id,
            "durations": durations,
            "secrets": dict.fromkeys(self.secrets, ""),
            "owner": {"id": self.owner, "name": self.owner, "type": "user"},
            "status": {"stage": self.stage, "message": self.message},
        }


def build_jobs(app: FastAPI, hub: Hub) -> None:
    def job_of(owner: str, job_id: str, request: Request) -> Job:
        require_writer(hub, request, owner)
        if job_id not in hub.jobs:
            raise Refusal(404, "Job not found")
        found: Job = hub.jobs[job_id]
        return found

    @app.post("/api/jobs/{owner}")
    async def start(owner: str, request: Request) -> dict[str, Any]:
        require_writer(hub, request, owner)
        if owner in hub.without_money:
            raise Refusal(402, "Pre-paid credit balance is insufficient")
        spec = await request.json()
        if spec["flavor"] not in {machine["name"] for machine in MACHINES}:
            raise Refusal(400, "Invalid flavor")
        job = Job(f"{len(hub.jobs):024x}", owner, spec, spec.pop("secrets", {}), hub.endpoint)
        hub.jobs[job.id] = job
        threading.Thread(target=job.run, name=f"job {job.id}").start()
        return job.shown()

    @app.get("/api/jobs/{owner}")
    def listed(owner: str, request: Request) -> list[dict[str, Any]]:
        require_writer(hub, request, owner)
        wanted = {tuple(label.split("=", 1)) for label in request.query_params.getlist("label")}
        jobs = [job for job in hub.jobs.values() if job.owner == owner and wanted <= job.spec["labels"].items()]
        return [job.shown() for job in reversed(jobs)]

    @app.get("/api/jobs/{owner}/{job_id}")
    def inspect(owner: str, job_id: str, request: Request) -> dict[str, Any]:
        return job_of(owner, job_id, request).shown()

    @app.post("/api/jobs/{owner}/{job_id}/cancel")
    def cancel(owner: str, job_id: str, request: Request) -> dict[str, Any]:
        job = job_of(owner, job_id, request)
        job.end("CANCELED")
        return job.shown()

    @app.get("/api/jobs/{owner}/{job_id}/logs")
    def logs(owner: str, job_id: str, request: Request) -> StreamingResponse:
        return StreamingResponse(_events(job_of(owner, job_id, request)), media_type="text/event-stream")


async def _events(job: Job) -> AsyncIterator[str]:
    """What the job says, as it says it."""
    yield _event(job.created, "===== Job started at some time =====")
    told = 0
    while told < len(job.said) or not job.over:
        for at, line in job.said[told:]:
            yield _event(at, line)
            told += 1
        await asyncio.sleep(0.05)


def _event(at: float, line: str) -> str:
    return f"data: {json.dumps({'data': line, 'timestamp': _iso(at)})}\n\n"


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _after_uv(command: list[str]) -> list[str]:
    """The arguments of Python in `uv run --with … python …`."""
    assert command[:2] == ["uv", "run"]
    return command[command.index("python") + 1 :]


def end_all(hub: Hub) -> None:
    """Kill the jobs that are left."""
    for job in hub.jobs.values():
        while not job.over:
            job.asked_to_end = "CANCELED"
            job.kill()
            time.sleep(0.02)
