"""The commands for runs that train on Hugging Face Jobs: submit and fetch. Imports torch only for an estimate."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RunError
from ..preferences import Preferences, read_preferences
from ..preferences.doctor.findings import Finding
from ..recipe import DEMO_MODEL, Recipe
from ..runs.base_model import canonical_name
from ..runs.progress import duration
from ..runs.run import Run
from .options import Mapping, Source, Token, mapping_of, with_recipe_options
from .output import next_steps, print_findings

if TYPE_CHECKING:
    from ..jobs.remote import Remote

cli = typer.Typer()


@cli.command()
@with_recipe_options
def submit(  # noqa: PLR0913  # one parameter per option
    file: Source,
    *,
    mapping: Mapping = None,
    flavor: Annotated[str, typer.Option(help="The machine, such as a10g-small.")],
    timeout: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="The longest a job may take, such as 90m or 2h.", show_default=False),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(metavar="DOLLARS", help="The most that all its jobs together may cost; never exceeded.", min=0),
    ] = None,
    recipe_file: Annotated[
        Path | None,
        typer.Option(
            "--recipe", metavar="JSON", help="The recipe.json of an earlier run.", exists=True, dir_okay=False
        ),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="Your user's or organisation's name; it pays.")
    ] = None,
    push_minutes: Annotated[
        float, typer.Option(help="Minutes between two uploads of the run's folder.", min=0.001)
    ] = 3.0,
    token: Token = None,
    settings: dict[str, Any],
) -> None:
    """Train on Hugging Face Jobs. You watch, stop and resume the run as if it trained here."""
    from huggingface_hub import get_token

    from ..hub.account import account, price
    from ..jobs.remote import Remote, connect
    from ..jobs.submit import parse_duration, time_limit
    from ..jobs.submit import submit as submit_run

    asked = parse_duration(timeout) if timeout else None
    preferences = read_preferences(file, mapping=mapping_of(mapping))
    if recipe_file:
        recipe = Recipe.read(recipe_file, **settings)
    else:
        recipe = Recipe.for_model(pairs=len(preferences.pairs), **settings)
    recipe = replace(recipe, model=canonical_name(recipe.model))  # a job can get SmolLM2 only from the Hub
    api = connect(token)
    machine = price(flavor, api)
    owner = namespace or account(api).name
    print(preferences.sentence())
    needed = None if asked else _estimate(preferences, recipe)
    seconds = time_limit(machine.hourly, timeout=asked, budget=budget, estimate=needed)
    if needed and needed > seconds and not recipe.force:
        raise RunError(
            f"The run takes about {duration(needed)} on this machine, and --budget buys {duration(seconds)} on "
            f"{flavor}. Raise it, or --force goes on regardless."
        )
    run = Run.create(preferences, recipe)
    print_findings([Finding(**told) for told in run.report["findings"] if told["severity"] == "high"])
    remote = Remote(f"{owner}/{run.id}", flavor, machine.hourly, seconds, budget, push_minutes)
    _print_job(run, submit_run(run, remote, api))
    if token and token != get_token():
        print("Set HF_TOKEN to this token: status, stop and resume use it, or else your login.")


def _estimate(preferences: Preferences, recipe: Recipe) -> float | None:
    """Estimate the training time on this machine in seconds; None if that is slow or says nothing about the job's."""
    from huggingface_hub import try_to_load_from_cache

    try:
        import torch

        from ..training.ahead import run_preflight
    except ImportError:
        return None
    downloaded = isinstance(try_to_load_from_cache(recipe.model, "config.json"), str)
    if recipe.model != DEMO_MODEL and not (downloaded and torch.cuda.is_available()):
        return None
    from ..training.policy import quiet

    quiet()
    return run_preflight(preferences, recipe).run_seconds


def _print_job(run: Run, remote: Remote) -> None:

    job = remote.jobs[-1]
    print(
        f"Submitted {run.id}: at most {duration(job.timeout)}, ${job.timeout * remote.hourly / 3600:,.2f} on "
        f"{remote.flavor} at ${remote.hourly:,.2f} an hour.\nIts folder on the Hub: {remote.repo}, a private dataset\n"
        f"{next_steps(run, 'running')}"
    )


def cost_of(run: Run) -> str:
    """Describe what a submitted run has cost so far, and its budget."""
    from ..jobs.remote import Remote

    remote = Remote.of(run)
    most = f" of ${remote.budget:,.2f} at most" if remote.budget is not None else ""
    return f"On {remote.flavor}: ${remote.spent:,.2f}{most}, mirrored in {remote.repo}"


def resume_job(run: Run, *, budget: float | None) -> None:
    from ..jobs.remote import connect
    from ..jobs.submit import resume

    _print_job(run, resume(run, connect(), budget=budget))


def print_log(run: Run, *, follow: bool) -> None:
    """Print the mirrored log of a submitted run, or its job's log if more is to come, it is empty or the job died."""
    from ..jobs.remote import DIED, connect, log_lines, sync_all

    if run.may_have_news:
        sync_all([run])
    mirrored, state = run.log_tail(sys.maxsize), run.state
    if mirrored and (state.ended or not follow):
        print(mirrored)
        if not (state.ended and state.reason.startswith(DIED)):
            return
        print("\nWhat its last job said:\n")
    for line in log_lines(run, connect(), follow=follow):
        print(line, flush=True)


@cli.command()
def fetch(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A submitted run, or its repository: OWNER/NAME.")] = "last",
    *,
    token: Token = None,
) -> None:
    """Download a finished run from the Hub, to chat with it or publish it."""
    from ..jobs.remote import connect
    from ..jobs.remote import fetch as fetch_run

    found = fetch_run(run, connect(token))
    print(f"Fetched {found.id}.\nRun folder: {found.path}\n{next_steps(found, 'finished')}")
