"""The command line: one command a stage, each a few lines. Bad input ends in one line on stderr and exit code 2."""

from __future__ import annotations

import io
import json
import logging
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_chat import cli as chat_cli
from .cli_demo import cli as demo_cli
from .cli_jobs import cli as jobs_cli
from .cli_judge import cli as judge_cli
from .cli_lens import cli as lens_cli
from .cli_merge import cli as merge_cli
from .cli_publish import cli as publish_cli
from .cli_recipe import Mapping, Source, mapping_of, meant, with_recipe_options
from .cli_runs import Detach, Json, KeepGoing, set_going, tell_findings
from .cli_runs import cli as runs_cli
from .cli_space import cli as space_cli
from .cli_sweep import cli as sweep_cli
from .cli_votes import cli as votes_cli
from .errors import DPOHubError, RecipeError

if TYPE_CHECKING:
    from .preferences import PreferencePair, Preferences
    from .preferences.doctor.findings import Finding
    from .preferences.repair import Repair
    from .training.ahead import Preflight

cli = typer.Typer(
    help="A spreadsheet of preferences in, a better model on the Hub out, and a difference that anyone can see.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

cli.add_typer(runs_cli)
cli.add_typer(chat_cli)
cli.add_typer(demo_cli)
cli.add_typer(jobs_cli)
cli.add_typer(judge_cli)
cli.add_typer(lens_cli)
cli.add_typer(merge_cli)
cli.add_typer(publish_cli)
cli.add_typer(sweep_cli)
cli.add_typer(votes_cli)
cli.add_typer(space_cli, name="space")

SHOWN_PAIRS = 2


@cli.command()
def check(  # noqa: PLR0913  # an option each
    file: Source,
    *,
    mapping: Mapping = None,
    model: Annotated[
        str | None, typer.Option(help="A base model: see what its tokenizer and template make of it.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="The longest pair to train on, in tokens.", min=1)] = None,
    repair: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write the cleaned pairs here: .csv, .jsonl or .parquet.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a preference file was read as, what is wrong with it, and mend what can be mended."""
    from .preferences import read_preferences
    from .preferences.doctor import examine

    if max_length and not model:
        raise RecipeError("--max-length counts tokens, and whose they are is not said. Add --model.")
    preferences = read_preferences(file, mapping=mapping_of(mapping))
    model = meant(model)
    findings = examine(preferences, fit=_fit(model, max_length) if model else None)
    mended = _repaired(preferences, repair) if repair else None
    if as_json:
        report = preferences.report() | {"findings": [asdict(finding) for finding in findings]}
        report |= {"repair": asdict(mended)} if mended else {}
        print(json.dumps(report, indent=2, default=str))
        return
    _tell_preferences(preferences)
    tell_findings(findings)
    if not findings:
        print("Nothing looks wrong with these pairs.")
    given = f" --map {shlex.quote(','.join(mapping))}" if mapping else ""
    print(mended.sentence() if mended else f"Train on it:  dpo-hub train {shlex.quote(file)}{given}")


def _fit(model: str, max_length: int | None) -> Callable[[Iterable[PreferencePair]], list[Finding]]:
    """What the chat template and tokenizer of *model* make of pairs."""
    from .preferences.doctor import examine_with
    from .recipe import Recipe
    from .training.policy import load_base_tokenizer, quiet

    quiet()
    tokenizer, length = load_base_tokenizer(model), max_length or Recipe.for_model(model).max_length
    return lambda pairs: examine_with(tokenizer, pairs, length)


def _tell_preferences(preferences: Preferences) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from .preferences import text_of
    from .preferences.pairs import counted, rows_named

    report = preferences.report()
    print(f"{preferences.source}: {counted(report['pairs'], 'pair')} from {counted(report['rows'], 'row')}")
    print(f"Read as: {preferences.read_as()}")
    print(f"File: {'; '.join(preferences.notes)}")
    for reason, rows in preferences.left_out.items():
        print(f"Left out: {counted(len(rows), 'row')}, {reason} ({rows_named(rows)})")
    table = Table("row", "prompt", "chosen", "rejected", box=box.SIMPLE_HEAD, expand=True)
    for pair in preferences.pairs[:SHOWN_PAIRS]:
        parts = (text_of(part) for part in (pair.prompt, pair.chosen, pair.rejected))
        table.add_row(str(pair.row), *(Text(part if len(part) < 300 else f"{part[:300]} …") for part in parts))
    Console().print(table)


def _repaired(preferences: Preferences, out: Path) -> Repair:
    from .preferences.repair import repair

    return repair(preferences, out)


@cli.command()
@with_recipe_options
def train(  # noqa: PLR0913  # an option each
    file: Source,
    *,
    mapping: Mapping = None,
    continue_from: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Go on from a run's adapter: it is the reference, and its recipe the default."
        ),
    ] = None,
    detach: Detach = False,
    keep_going: KeepGoing = 0,
    accelerate_config: Annotated[
        Path | None,
        typer.Option(
            "--accelerate",
            metavar="YAML",
            help="Settings of accelerate for several devices.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    settings: dict[str, Any],
) -> None:
    """Train an adapter on a preference file, in a process of its own that closing this terminal does not end."""
    from .preferences import read_preferences
    from .preferences.doctor.findings import Finding
    from .recipe import DEMO_MODEL, Recipe
    from .run import Run

    preferences = read_preferences(file, mapping=mapping_of(mapping))
    settings["model"] = meant(settings["model"])
    previous = Run.open(continue_from).require_finished() if continue_from else None
    if previous:
        recipe = previous.recipe.next_round(**settings)
    else:
        recipe = Recipe.for_model(settings.pop("model") or DEMO_MODEL, pairs=len(preferences.pairs), **settings)
    print(preferences.sentence())
    devices = accelerate_config.read_text(encoding="utf-8") if accelerate_config else ""
    run = Run.create(preferences, recipe, previous=previous)
    tell_findings([Finding(**told) for told in run.report["findings"] if told["severity"] == "high"])
    print(f"{run.report['train']} pairs to train on, {run.report['held_out']} held out.")
    if devices:
        run.write("accelerate.yaml", devices)
    set_going(run, detach=detach, keep_going=keep_going)


@cli.command()
@with_recipe_options
def preflight(  # noqa: PLR0913  # an option each
    file: Source,
    *,
    mapping: Mapping = None,
    flavor: Annotated[str | None, typer.Option(help="A machine on the Hub, as a10g-small: say what it costs.")] = None,
    publish_to: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Say whether it may be published there.")
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="For the Hub; by default your own login.", show_default=False)
    ] = None,
    as_json: Json = False,
    settings: dict[str, Any],
) -> None:
    """Say what a training run will take, and whether it will certainly fail, before it starts."""
    from .preferences import read_preferences
    from .recipe import DEMO_MODEL, Recipe

    preferences = read_preferences(file, mapping=mapping_of(mapping))
    settings["model"] = meant(settings["model"])
    recipe = Recipe.for_model(settings.pop("model") or DEMO_MODEL, pairs=len(preferences.pairs), **settings)
    from .training.ahead import look_ahead
    from .training.policy import quiet
    from .training.preflight import stop_where_certain

    quiet()
    ahead = look_ahead(preferences, recipe, flavor=flavor, publish_to=publish_to, token=token)
    if as_json:
        print(json.dumps(ahead.as_dict(), indent=2))
    else:
        _tell_preflight(ahead)
    if not recipe.force:
        stop_where_certain(ahead.findings)


def _tell_preflight(ahead: Preflight) -> None:
    from rich.console import Console
    from rich.table import Table

    from .training.ahead import told

    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, figure in told(ahead):
        grid.add_row(name, figure)
    Console(highlight=False).print(grid)
    tell_findings(ahead.findings)
    if not ahead.findings:
        print("Nothing stands against this run.")


@cli.command()
def app(port: Annotated[int, typer.Option(help="Port on this machine.", min=1, max=65535)] = 7860) -> None:
    """Open the app in a browser: upload, train, compare."""
    from .app import launch

    launch(server_port=port, inbrowser=True)


def main() -> None:
    """Run the command line; an expected error is one line on stderr and exit code 2."""
    from .errors import telling_disk_full
    from .run import home

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal's encoding may know no arrows
    warnings.filterwarnings("ignore", category=SyntaxWarning)  # Python's own, of cells that look like Python
    notes = logging.StreamHandler()
    notes.setLevel(logging.WARNING)
    notes.setFormatter(logging.Formatter("note: %(message)s"))
    logging.getLogger("dpo_hub").addHandler(notes)
    try:
        with telling_disk_full(home()):
            cli(prog_name="hf dpo" if Path(sys.argv[0]).stem == "hf-dpo" else None)
    except DPOHubError as error:
        print(f"dpo-hub: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        print(
            f"dpo-hub:{where} {error.strerror or error}. Check the path, and that you may read and write there.",
            file=sys.stderr,
        )
        sys.exit(2)
