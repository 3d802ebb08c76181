"""Findings about an outlook: what is certain to make a run fail, and what needs attention. Trains nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator

from ..errors import DiskFullError, DPOHubError, ModelError, PublishError
from ..preferences.doctor.findings import Finding, Severity, by_severity
from ..runs.run import Run
from .forecast import Disk, Memory, Outlook

log = logging.getLogger(__name__)

FILE = "preflight.json"
"""The file in a run's folder that keeps the forecast."""
ERRORS: dict[str, type[DPOHubError]] = {"disk": DiskFullError, "publishing": PublishError}
"""The error for each kind of finding; `ModelError` for all others."""
FORCE = "--force goes on regardless."


def require_room(outlook: Outlook, run: Run, *, force: bool = False) -> None:
    """Log what a run will need, save it in the run's folder, and stop a run that is certain to fail.

    Args:
        outlook: what `fitting.fit_to_memory` returned.
        run: the run that is about to train.
        force: only warn, and do not stop the run.

    Raises:
        ModelError: not even one pair at a time fits into memory.
        DiskFullError: the checkpoints do not fit on the disk.
    """
    findings = examine(outlook)
    run.write(FILE, json.dumps(outlook.as_dict() | {"findings": [vars(finding) for finding in findings]}, indent=2))
    log.info("%s", memory_line(outlook.memory))
    log.info(
        "%s; %s",
        disk_line(outlook.disk),
        f"{outlook.batches.steps:,} steps, {outlook.batches.tokens:,} tokens through the model",
    )
    if force:
        for finding in findings:
            log.warning("%s", finding.message)
    else:
        stop_where_certain(findings)


def stop_where_certain(findings: Iterable[Finding]) -> None:
    """Raise the first finding of high severity as the error that it would become.

    Raises:
        DPOHubError: there is such a finding; the message says what to do.
    """
    for finding in findings:
        if finding.severity == "high":
            raise ERRORS.get(finding.kind, ModelError)(f"{finding.message} {finding.advice} {FORCE}")


def examine(outlook: Outlook) -> list[Finding]:
    """Return findings on what in *outlook* would end the run or needs attention, the most severe first."""
    return by_severity([*_of_memory(outlook), *_of_disk(outlook.disk)])


def _of_memory(outlook: Outlook) -> Iterator[Finding]:
    memory, fitting = outlook.memory, outlook.fitting_batch_size
    less = "Lower --batch-size (and raise --accumulation) or --max-length, or take a smaller base model."
    free = f"{gigabytes(memory.free)} that are free"
    if not fitting:
        yield _finding("memory", f"Not even one pair at a time fits into the {free}.", less, "high")
    elif memory.to_come > memory.free:
        message = (
            f"A batch takes {gigabytes(memory.to_come)} more than is held, and not the {free}; {fitting} at a time"
        )
        yield _finding("memory", f"{message} would fit.", less, "medium")
    elif memory.is_tight:
        message = f"The run may take {gigabytes(memory.to_come + memory.holes)} of the {free}."
        yield _finding("memory", message, f"Close other programs, or: {less[0].lower()}{less[1:]}", "medium")


def _of_disk(disk: Disk) -> Iterator[Finding]:
    if disk.needed > disk.free:
        message = f"Checkpoints and adapter take {gigabytes(disk.needed)}, and {gigabytes(disk.free)} of disk are free."
        yield _finding(
            "disk", message, "Free some space, or keep runs on another disk (DPO_HUB_HOME), or lower --lora-r.", "high"
        )


def _finding(kind: str, message: str, advice: str, severity: Severity) -> Finding:
    return Finding(kind, message, 0, (), advice, severity)


def memory_line(memory: Memory) -> str:
    """The memory by purpose, in one line."""
    parts = {
        "base model": memory.weights,
        "adapter, its gradients and optimizer": memory.adapter + memory.gradients + memory.optimizer,
        "activations and logits": memory.activations + memory.working,
        "freed and kept": memory.holes,
        "the process itself": memory.process,
    }
    told = ", ".join(f"{name} {gigabytes(size)}" for name, size in parts.items() if size)
    before = f", after {gigabytes(memory.earlier)} until now" if memory.earlier > memory.training else ""
    return f"memory: {gigabytes(memory.training)} at most ({told}){before}; {gigabytes(memory.free)} more are free"


def disk_line(disk: Disk) -> str:
    """The disk space needed and free, in one line."""
    return f"disk: {gigabytes(disk.needed)} at most for checkpoints and adapter, {gigabytes(disk.free)} free"


def gigabytes(size: float) -> str:
    """Format bytes: `86 MB`, `2.4 GB`, `24 GB`."""
    if size < 1e9:
        return f"{max(1, round(size / 1e6))} MB" if size else "0 MB"
    return f"{size / 1e9:.1f} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"
