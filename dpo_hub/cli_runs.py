"""The commands that look after runs: which there are, how one goes, its log, stop, resume, remove. Loads no torch."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import RunError

if TYPE_CHECKING:
    from .preferences.doctor.findings import Finding
    from .run import Run
    from .training.health import Finding as Symptom

cli = typer.Typer()

Show = Callable[[Mapping[str, float], int], None]
"""Shows a step's metrics, and how many steps there are in all."""
SHADES = {"high": "bold red", "medium": "yellow", "low": "dim"}
POLL = 0.3
"""Seconds between two looks at a run's folder."""
SOON = 2.0
"""Seconds in the queue that are not worth telling."""
NEWEST = 20
"""Runs that are listed unless all are asked for."""
HERE = "here"
"""Where a run trains that was not submitted."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Token = Annotated[str | None, typer.Option(help="For the Hub; by default your own login.", show_default=False)]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or how it begins, 'last', or its folder.")]
Detach = Annotated[bool, typer.Option("--detach", help="Do not wait: say how to look after it, and return.")]
KeepGoing = Annotated[
    int, typer.Option(metavar="TIMES", help="Take it up again by itself, so many times, when its process dies.", min=0)
]


@cli.command()
def runs(
    *,
    every: Annotated[bool, typer.Option("--all", help="All of them, not the newest only.")] = False,
    as_json: Json = False,
) -> None:
    """List the runs, the newest first: where each stands, and what it said last."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from .progress import progress
    from .run import all_runs, home

    found = all_runs()
    shown = found if every or as_json else found[:NEWEST]
    elsewhere = {run.id: run.remote["flavor"] for run in shown if run.remote}
    if unfinished := [run for run in shown if run.may_have_news]:
        from .hub.remote import sync_all

        sync_all(unfinished)
    if as_json:
        told = [{"run": run.id, "where": elsewhere.get(run.id, HERE), **asdict(progress(run))} for run in shown]
        print(json.dumps({"runs": told}, indent=2))
        return
    if not found:
        print(f"No run was made yet under {home()}. Start with: dpo-hub train FILE")
        return
    table = Table("run", *(["where"] if elsewhere else []), "state", "step", "", box=box.SIMPLE_HEAD)
    for run in shown:
        goes = progress(run)
        step = f"{goes.step}/{goes.steps}" if goes.steps else ""
        where = [elsewhere.get(run.id, HERE)] if elsewhere else []
        short = goes.headline.short if goes.headline else goes.sentence
        table.add_row(Text(run.id, no_wrap=True), *where, goes.status, step, Text(short))
    Console().print(table)
    if more := len(found) - len(shown):
        print(f"{more} more: dpo-hub runs --all")


@cli.command()
def status(run: RunName = "last", *, as_json: Json = False) -> None:
    """Say how a run goes."""
    from .progress import progress
    from .run import Run, finite
    from .training.health import diagnose

    found = Run.open(run)
    if found.may_have_news:
        from .hub.remote import sync_all

        sync_all([found])
    goes = progress(found)
    if as_json:
        told = {"run": found.id, "path": str(found.path), **asdict(goes), "last": finite(found.last_metrics)}
        print(json.dumps(told | {"findings": [asdict(finding) for finding in diagnose(found)]}, indent=2))
        return
    print(f"{found.id}: {goes.sentence}")
    if goes.steps:
        print(f"Step {goes.step} of {goes.steps}{_figures(found.last_metrics)}")
    tell_findings(diagnose(found))
    if found.remote:
        from .cli_jobs import cost_of

        print(cost_of(found))
    print(f"Run folder: {found.path}\n{what_next(found, goes.status)}")


def _figures(last: dict[str, float]) -> str:
    if not last:
        return ""
    return f": loss {last['loss']:.3f}, margin {last['margin']:.2f}, reward accuracy {last['reward_accuracy']:.0%}"


def what_next(run: Run, status: str) -> str:
    if status == "finished" and run.remote and not run.adapter.is_dir():
        return f"Bring it home:  dpo-hub fetch {run.id}"
    return {
        "finished": f'Talk to it:  dpo-hub chat {run.id} "…"',
        "failed": f"See what happened:  dpo-hub logs {run.id}    Go on:  dpo-hub resume {run.id}",
        "stopped": f"Go on from there:  dpo-hub resume {run.id}",
        "running": f"Follow it:  dpo-hub logs -f {run.id}    Stop it:  dpo-hub stop {run.id}",
        "queued": f"Stop it:  dpo-hub stop {run.id}",
    }[status]


def tell_edited(run: Run) -> None:
    """Say that the card was edited by hand, so that it has no new figures."""
    print(
        f"{run.path / 'README.md'} was edited and stays as it is, without the new figures. To have it rendered again, "
        f"remove it and run:  dpo-hub votes {run.id} --into-card",
        file=sys.stderr,
    )


@cli.command()
def logs(
    run: RunName = "last",
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until it ends.")] = False,
) -> None:
    """Print what a run's processes said."""
    from .progress import Log
    from .run import Run

    found = Run.open(run)
    if found.remote:
        from .cli_jobs import print_log

        print_log(found, follow=follow)
        return
    seen = Log(found.log)
    print(seen.news(), end="")
    while follow and not found.state.ended:
        time.sleep(POLL)
        print(seen.news(), end="", flush=True)
    print(seen.news(), end="")


@cli.command()
def stop(run: RunName = "last") -> None:
    """Stop a run that waits or is at work; it keeps a checkpoint to go on from."""
    from .launch import stop as stop_run
    from .run import Run

    found = Run.open(run)
    if found.state.ended and not found.may_have_news:
        print(f"{found.id} is {found.state.status} already.")
        return
    if found.remote:
        from .hub.remote import connect
        from .hub.remote import stop as stop_job

        stop_job(found, connect())
    else:
        stop_run(found)
    _tell_end(found)


@cli.command()
def resume(  # noqa: PLR0913  # an option each
    run: RunName = "last",
    *,
    detach: Detach = False,
    keep_going: KeepGoing = 0,
    activation_checkpointing: Annotated[
        bool, typer.Option("--activation-checkpointing", help="From here on compute activations twice, to save memory.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Go on even where preflight says that it will fail.")] = False,
    budget: Annotated[
        float | None, typer.Option(metavar="DOLLARS", help="Of a submitted run: what all its jobs may cost.", min=0)
    ] = None,
) -> None:
    """Take up a run that stopped or failed, from its last good checkpoint."""
    from .launch import change
    from .run import Run

    found = Run.open(run)
    if found.remote and (detach or keep_going):
        raise RunError("--detach and --keep-going are for runs that train here; a job goes on by itself.")
    if budget is not None and not found.remote:
        raise RunError(f"--budget is for runs that were submitted, and {found.id} trains here, for nothing.")
    if found.remote:
        from .hub.remote import connect, sync

        sync(found, connect())  # before anything of it is changed here
    if activation_checkpointing or force:
        change(found, activation_checkpointing=activation_checkpointing, force=force)
    if found.remote:
        from .cli_jobs import resume_job

        resume_job(found, budget=budget)
        return
    set_going(found, detach=detach, keep_going=keep_going)


@cli.command()
def remove(run: RunName, *, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete a run: its folder with pairs, adapter and all."""
    from .launch import remove as remove_run
    from .run import Run

    found = Run.open(run)
    if found.may_have_news:
        from .hub.remote import sync_all

        sync_all([found])
    if not yes:
        typer.confirm(f"Delete {found.path} with all that is in it?", abort=True)
    stays = f" What is on the Hub stays: {found.remote['repo']}, a dataset." if found.remote else ""
    remove_run(found)
    print(f"{found.id} is gone.{stays}")


def tell_findings(findings: Sequence[Finding | Symptom]) -> None:
    """Show what the doctor says of pairs, with their rows, or health of a run."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 1, 0))
    for finding in findings:
        told = Text.assemble(finding.message, "\n", (finding.hint, "dim"))
        grid.add_row(Text(finding.severity, SHADES[finding.severity]), told)
    Console().print(grid)


def set_going(run: Run, *, detach: bool, keep_going: int) -> None:
    """Start *run* and, unless *detach*, follow it to its end. Ctrl-C stops it, and keeps a checkpoint.

    Raises:
        RunError: it cannot be started, or has failed.
    """
    from .launch import start
    from .launch import stop as stop_run

    start(run, keep_going=keep_going)
    if detach:
        print(f"Started {run.id}.\n{what_next(run, 'running')}")
        return
    try:
        follow(run)
    except KeyboardInterrupt:
        print("\nStopping …", file=sys.stderr)
        stop_run(run)
        _tell_end(run)
        sys.exit(130)
    _tell_end(run)


def _tell_end(run: Run) -> None:
    state = run.state
    if state.status == "failed":
        again = "" if state.expected else f" Go on from its last checkpoint: dpo-hub resume {run.id}"
        raise RunError(f"{state.reason}{again}")
    if state.status == "finished":
        from .headline import accuracy_interval, headline_of
        from .training.health import diagnose

        print(headline_of(run).sentence)
        measured, (low, high) = run.evaluation, accuracy_interval(run.evaluation)
        print(
            f"Held-out reward accuracy {measured['reward_accuracy']:.1%} (95% interval {low:.0%} to {high:.0%}) over "
            f"{measured['pairs']} pairs, margin {measured['margin']:.2f}."
        )
        if told := run.report.get("auto_stop"):
            print(f"Ended at step {told['ended']} of {told['steps']}; the adapter is that of step {told['kept']}.")
        tell_findings([finding for finding in diagnose(run) if finding.severity != "low"])
    else:
        from .progress import progress

        print(f"{run.id}: {progress(run).sentence}")
    print(f"Run folder: {run.path}\n{what_next(run, state.status)}")


def follow(run: Run) -> None:
    """Show how *run* goes until it has ended, and pass on what its log warns of."""
    from .progress import Log, progress
    from .state import ENDED

    seen, told, began = Log(run.log, from_end=True), "", time.monotonic()
    with progress_bar(run.recipe.model) as show:
        while (goes := progress(run)).status not in ENDED:
            for line in seen.news().splitlines():
                if " WARNING " in line:
                    print(f"note: {line.partition(' WARNING ')[2]}", file=sys.stderr)
            last = run.last_metrics
            if goes.status == "queued" and goes.sentence != told and time.monotonic() - began > SOON:
                print(told := goes.sentence, file=sys.stderr)
            if last and goes.steps:
                show(last, goes.steps)
            time.sleep(POLL)


@contextmanager
def progress_bar(label: str) -> Iterator[Show]:
    """Show a live bar on stderr, where that is a terminal: step, loss, margin, reward accuracy, time left."""
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
