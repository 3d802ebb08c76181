"""The commands that train a grid of recipes, and compare what runs gained with how far they moved for it."""

from __future__ import annotations

import csv
import json
import secrets
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ..comparison.frontier import Point, advice, point_of, recommended
from ..comparison.frontier import frontier as frontier_of
from ..comparison.frontier_picture import draw_frontier
from ..errors import RunError
from ..preferences import Preferences, read_preferences
from ..recipe import Recipe
from ..runs.launch import start, stop
from ..runs.run import Run, finite, home
from ..runs.sweep import grid, values_of
from .follow import follow
from .options import Json, Mapping, Source, mapping_of, resolve_model, with_recipe_options

cli = typer.Typer()

AXES = ("beta", "loss", "learning_rate", "lora_r", "epochs", "sft_weight")
"""The settings for which a sweep accepts several values."""


@cli.command()
@partial(with_recipe_options, listed=AXES)
def sweep(
    file: Source,
    *,
    mapping: Mapping = None,
    as_json: Json = False,
    settings: dict[str, Any],
) -> None:
    """Train a grid of recipes, as in --beta 0.05,0.1 --loss sigmoid,ipo, and recommend one.

    Held-out pairs are measured only at the end of each run, unless --evaluations or --auto-stop says otherwise.
    """
    settings["model"] = resolve_model(settings["model"])
    written = {name: settings.pop(name) for name in AXES}
    axes = {name: values_of(name, values) for name, values in written.items() if values is not None}
    first = {name: values[0] for name, values in axes.items()}
    if settings["evaluations"] is None and not settings["auto_stop"]:
        settings["evaluations"] = 0  # runs are compared by their final measurements
    preferences = read_preferences(file, mapping=mapping_of(mapping))
    recipes = grid(Recipe.for_model(pairs=len(preferences.pairs), **settings, **first), axes)
    print(f"{preferences.sentence()}\n{len(recipes)} runs, one after the other.", file=sys.stderr)
    finished = _train_all(preferences, recipes)
    if not finished:
        raise RunError("No run of the sweep has finished, so there is nothing to compare.")
    folder = home() / "sweeps" / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True)
    _show(finished, folder / "frontier.png", folder / "table.csv", as_json=as_json)


def _train_all(preferences: Preferences, recipes: Sequence[Recipe]) -> list[Run]:
    """Train each recipe, even if the run of another one fails. Return the finished runs."""
    runs: list[Run] = []
    try:
        for recipe in recipes:
            runs.append(Run.create(preferences, recipe))
        start(*runs)
        for number, run in enumerate(runs, 1):
            print(f"{number} of {len(runs)}: {run.id}, {_differences(run.asked, recipes)}", file=sys.stderr)
            follow(run)
            if (state := run.state).status != "finished":
                print(f"{run.id} has {state.status}: {state.reason}", file=sys.stderr)
    except KeyboardInterrupt:
        _stop_all(runs)
    return [run for run in runs if run.state.status == "finished"]


def _stop_all(runs: Sequence[Run]) -> NoReturn:
    """Stop all running and waiting runs, and print how to continue."""
    print("\nStopped. Go on with:", file=sys.stderr)
    for run in reversed(runs):  # last first, so that no waiting run starts now
        stop(run)
    stopped = [f"dpo-hub resume {run.id}" for run in runs if run.state.status == "stopped"]
    again = shlex.join(["dpo-hub", "frontier", *(run.id for run in runs if run.state.status != "failed")])
    print(*stopped, again, sep="\n", file=sys.stderr)
    sys.exit(130)


def _differences(recipe: Recipe, recipes: Sequence[Recipe]) -> str:
    """Describe what distinguishes *recipe* from the others."""
    names = [one.name for one in fields(recipe) if len({getattr(other, one.name) for other in recipes}) > 1]
    return ", ".join(f"{name} {getattr(recipe, name)}" for name in names) or "the only one"


@cli.command()
def frontier(
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help="Finished runs on the same pairs.")],
    *,
    to: Annotated[Path | None, typer.Option(metavar="PNG", help="Save the plot to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Compare runs by reward accuracy and by distance from the reference, and recommend one."""
    found = [Run.open(name).require_finished() for name in runs]
    if to and to.suffix.lower() != ".png":
        raise RunError(f"{to}: the frontier is drawn as a PNG. End the name in .png.")
    if len({run.report["sha256"] for run in found}) > 1:
        print("note: these runs were trained on different pairs, so their accuracies do not compare.", file=sys.stderr)
    _show(found, to, None, as_json=as_json)


def _show(runs: Sequence[Run], picture: Path | None, table: Path | None, *, as_json: bool) -> None:
    """Print the frontier of *runs*, and save it to *picture* and *table* if given."""
    points = [point_of(run) for run in runs]
    best, chosen = frontier_of(points), recommended(points)
    if picture:
        draw_frontier(points, picture)
    if table:
        with table.open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, [one.name for one in fields(points[0])])
            writer.writeheader()
            writer.writerows(map(asdict, points))
    if as_json:
        told = [finite(asdict(point)) | {"on_frontier": point in best} for point in points]
        print(json.dumps({"runs": told, "recommended": chosen.run if chosen else None}, indent=2))
        return
    _print_frontier(points, best)
    print("\n".join(advice(points)))
    if chosen:
        print(f"Talk to it:  dpo-hub chat {chosen.run}\nPublish it:  dpo-hub publish {chosen.run} OWNER/NAME")
    for path in filter(None, (picture, table)):
        print(f"Written: {path}")


def _print_frontier(points: Sequence[Point], best: Sequence[Point]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("", "run", "loss"):
        table.add_column(name, no_wrap=name != "loss", overflow="fold", vertical="bottom")
    for name in ("β", "KL, nats\na token", "reward\naccuracy", "95 %\ninterval"):
        table.add_column(name, justify="right", vertical="bottom")
    for point in sorted(points, key=lambda one: (not isfinite(one.kl), one.kl)):
        low, high = point.interval
        figures = f"{point.kl:.3f}" if isfinite(point.kl) else "?", f"{point.accuracy:.1%}", f"{low:.0%}-{high:.0%}"
        table.add_row("*" if point in best else "", point.run, point.loss, f"{point.beta:g}", *figures)
    console = Console(highlight=False)
    console.print(table, "* on the frontier: no other run has as much accuracy for less KL", sep="", markup=False)
    for point in points:
        if point.wrong:
            console.print(f"{point.run}: {point.wrong}", markup=False)
