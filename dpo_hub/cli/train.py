"""The commands that train an adapter, and report beforehand what that will take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..preferences import read_preferences
from ..preferences.doctor.findings import Finding
from ..recipe import Recipe
from ..runs.run import Run
from .follow import start_and_follow
from .options import Detach, Json, KeepGoing, Mapping, Source, Token, mapping_of, resolve_model, with_recipe_options
from .output import print_findings

if TYPE_CHECKING:
    from ..training.ahead import Preflight

cli = typer.Typer()


@cli.command()
@with_recipe_options
def train(  # noqa: PLR0913  # one parameter per option
    file: Source,
    *,
    mapping: Mapping = None,
    continue_from: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Continue from a run's adapter, which becomes the reference; its recipe is the default."
        ),
    ] = None,
    detach: Detach = False,
    keep_going: KeepGoing = 0,
    accelerate_config: Annotated[
        Path | None,
        typer.Option(
            "--accelerate",
            metavar="YAML",
            help="accelerate's settings for several devices.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    settings: dict[str, Any],
) -> None:
    """Train an adapter on a preference file. It runs in a process of its own and survives closing the terminal."""
    preferences = read_preferences(file, mapping=mapping_of(mapping))
    settings["model"] = resolve_model(settings["model"])
    previous = Run.open(continue_from).require_finished() if continue_from else None
    if previous:
        recipe = previous.asked.next_round(**settings)
    else:
        recipe = Recipe.for_model(pairs=len(preferences.pairs), **settings)
    print(preferences.sentence())
    devices = accelerate_config.read_text(encoding="utf-8") if accelerate_config else ""
    run = Run.create(preferences, recipe, previous=previous)
    print_findings([Finding(**told) for told in run.report["findings"] if told["severity"] == "high"])
    print(f"{run.report['train']} pairs to train on, {run.report['held_out']} held out.")
    if devices:
        run.write("accelerate.yaml", devices)
    start_and_follow(run, detach=detach, keep_going=keep_going)


@cli.command()
@with_recipe_options
def preflight(  # noqa: PLR0913  # one parameter per option
    file: Source,
    *,
    mapping: Mapping = None,
    flavor: Annotated[
        str | None, typer.Option(help="A Hugging Face machine, such as a10g-small: show what the run costs there.")
    ] = None,
    publish_to: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Check whether you can publish there.")
    ] = None,
    token: Token = None,
    as_json: Json = False,
    settings: dict[str, Any],
) -> None:
    """Show what a training run will take, and whether it is certain to fail, before you start it."""
    preferences = read_preferences(file, mapping=mapping_of(mapping))
    settings["model"] = resolve_model(settings["model"])
    recipe = Recipe.for_model(pairs=len(preferences.pairs), **settings)
    from ..training.ahead import run_preflight
    from ..training.policy import quiet
    from ..training.preflight import stop_where_certain

    quiet()
    ahead = run_preflight(preferences, recipe, flavor=flavor, publish_to=publish_to, token=token)
    if as_json:
        print(json.dumps(ahead.as_dict(), indent=2))
    else:
        _print_preflight(ahead)
    if not recipe.force:
        stop_where_certain(ahead.findings)


def _print_preflight(ahead: Preflight) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..training.ahead import report_lines

    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, figure in report_lines(ahead):
        grid.add_row(name, figure)
    Console(highlight=False).print(grid)
    print_findings(ahead.findings)
    if not ahead.findings:
        print("No problems found.")
