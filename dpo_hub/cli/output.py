"""Output shared by several commands: findings, a run's progress bar, what to do next."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ..preferences.doctor.findings import Finding
from ..runs.health import Finding as Symptom
from ..runs.run import Run

Show = Callable[[Mapping[str, float], int], None]
"""A function that shows a step's metrics, given also the total number of steps."""
SEVERITY_STYLES = {"high": "bold red", "medium": "yellow", "low": "dim"}


def next_steps(run: Run, status: str) -> str:
    if status == "finished" and run.remote and not run.adapter.is_dir():
        return f"Bring it home:  dpo-hub fetch {run.id}"
    return {
        "finished": f'Talk to it:  dpo-hub chat {run.id} "…"',
        "failed": f"See what happened:  dpo-hub logs {run.id}    Go on:  dpo-hub resume {run.id}",
        "stopped": f"Go on from there:  dpo-hub resume {run.id}",
        "running": f"Follow it:  dpo-hub logs -f {run.id}    Stop it:  dpo-hub stop {run.id}",
        "queued": f"Stop it:  dpo-hub stop {run.id}",
    }[status]


def print_edited(run: Run) -> None:
    """Report that the card was edited by hand and therefore not updated with new figures."""
    print(
        f"{run.path / 'README.md'} was edited and stays as it is, without the new figures. To have it rendered again, "
        f"remove it and run:  dpo-hub votes {run.id} --into-card",
        file=sys.stderr,
    )


def print_findings(findings: Sequence[Finding | Symptom]) -> None:
    """Show the doctor's findings on pairs, with their rows, or the health findings on a run."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 1, 0))
    for finding in findings:
        told = Text.assemble(finding.message, "\n", (finding.hint, "dim"))
        grid.add_row(Text(finding.severity, SEVERITY_STYLES[finding.severity]), told)
    Console().print(grid)


@contextmanager
def progress_bar(label: str) -> Iterator[Show]:
    """Show a live bar on stderr if it is a terminal: step, loss, margin, reward accuracy, time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None, told="preparing")

        def show(last: Mapping[str, float], steps: int) -> None:
            figures = f"loss {last['loss']:.3f}  margin {last['margin']:.2f}  accuracy {last['reward_accuracy']:.0%}"
            bar.update(task, completed=last["step"], total=steps, told=figures)

        yield show
