"""The commands that manage runs: list, status, log, stop, resume, remove. Does not import torch."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer

from ..errors import RunError
from ..runs.health import diagnose
from ..runs.launch import enable_options
from ..runs.launch import remove as remove_run
from ..runs.launch import stop as stop_run
from ..runs.progress import Log, progress
from ..runs.run import Run, all_runs, finite, home
from .follow import POLL, print_end, start_and_follow
from .jobs import cost_of, print_log, resume_job
from .options import Detach, Json, KeepGoing, RunName
from .output import next_steps, print_findings

cli = typer.Typer()

NEWEST = 20
"""Number of runs that are listed without --all."""
HERE = "here"
"""The place of a run that was not submitted."""


@cli.command()
def runs(
    *,
    every: Annotated[bool, typer.Option("--all", help="List all runs, not only the newest.")] = False,
    as_json: Json = False,
) -> None:
    """List your runs, the newest first, with their state and what changed."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    found = all_runs()
    shown = found if every or as_json else found[:NEWEST]
    elsewhere = {run.id: run.remote["flavor"] for run in shown if run.remote}
    if unfinished := [run for run in shown if run.may_have_news]:
        from ..jobs.remote import sync_all

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
        current = progress(run)
        step = f"{current.step}/{current.steps}" if current.steps else ""
        where = [elsewhere.get(run.id, HERE)] if elsewhere else []
        short = current.headline.short if current.headline else current.sentence
        table.add_row(Text(run.id, no_wrap=True), *where, current.status, step, Text(short))
    Console().print(table)
    if more := len(found) - len(shown):
        print(f"{more} more: dpo-hub runs --all")


@cli.command()
def status(run: RunName = "last", *, as_json: Json = False) -> None:
    """Show how a run is going."""
    found = Run.open(run)
    if found.may_have_news:
        from ..jobs.remote import sync_all

        sync_all([found])
    current = progress(found)
    if as_json:
        told = {"run": found.id, "path": str(found.path), **asdict(current), "last": finite(found.last_metrics)}
        print(json.dumps(told | {"findings": [asdict(finding) for finding in diagnose(found)]}, indent=2))
        return
    print(f"{found.id}: {current.sentence}")
    if current.steps:
        print(f"Step {current.step} of {current.steps}{_figures(found.last_metrics)}")
    print_findings(diagnose(found))
    if found.remote:
        print(cost_of(found))
    print(f"Run folder: {found.path}\n{next_steps(found, current.status)}")


def _figures(last: dict[str, float]) -> str:
    if not last:
        return ""
    return f": loss {last['loss']:.3f}, margin {last['margin']:.2f}, reward accuracy {last['reward_accuracy']:.0%}"


@cli.command()
def logs(
    run: RunName = "last",
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Keep printing until the run ends.")] = False,
) -> None:
    """Print a run's log."""
    found = Run.open(run)
    if found.remote:
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
    """Stop a queued or running run. It keeps a checkpoint to resume from."""
    found = Run.open(run)
    if found.state.ended and not found.may_have_news:
        print(f"{found.id} is {found.state.status} already.")
        return
    if found.remote:
        from ..jobs.remote import connect
        from ..jobs.remote import stop as stop_job

        stop_job(found, connect())
    else:
        stop_run(found)
    print_end(found)


@cli.command()
def resume(  # noqa: PLR0913  # one parameter per option
    run: RunName = "last",
    *,
    detach: Detach = False,
    keep_going: KeepGoing = 0,
    activation_checkpointing: Annotated[
        bool,
        typer.Option("--activation-checkpointing", help="From here on, save memory by computing activations twice."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Continue even if preflight says the run will fail.")] = False,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="DOLLARS", help="For a submitted run: the most that all its jobs together may cost.", min=0
        ),
    ] = None,
) -> None:
    """Resume a stopped or failed run from its last good checkpoint."""
    found = Run.open(run)
    if found.remote and (detach or keep_going):
        raise RunError("--detach and --keep-going are for runs that train here; a job goes on by itself.")
    if budget is not None and not found.remote:
        raise RunError(f"--budget is for runs that were submitted, and {found.id} trains here, for nothing.")
    if found.remote:
        from ..jobs.remote import connect, sync

        sync(found, connect())  # before anything of the run is changed here
    if activation_checkpointing or force:
        enable_options(found, activation_checkpointing=activation_checkpointing, force=force)
    if found.remote:
        resume_job(found, budget=budget)
        return
    start_and_follow(found, detach=detach, keep_going=keep_going)


@cli.command()
def remove(
    run: RunName, *, yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False
) -> None:
    """Delete a run: its folder, with the pairs and the adapter."""
    found = Run.open(run)
    if found.may_have_news:
        from ..jobs.remote import sync_all

        sync_all([found])
    if not yes:
        typer.confirm(f"Delete {found.path} with all that is in it?", abort=True)
    stays = f" What is on the Hub stays: {found.remote['repo']}, a dataset." if found.remote else ""
    remove_run(found)
    print(f"{found.id} is gone.{stays}")
