"""The command that reads a preference file, reports its problems, and repairs it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RecipeError
from ..preferences import PreferencePair, Preferences, read_preferences, text_of
from ..preferences.doctor.findings import Finding
from ..preferences.pairs import format_rows, pluralise
from ..preferences.repair import repair as write_repaired
from ..recipe import Recipe
from .options import Json, Mapping, Source, mapping_of, resolve_model
from .output import print_findings

cli = typer.Typer()

SHOWN_PAIRS = 2


@cli.command()
def check(  # noqa: PLR0913  # one parameter per option
    file: Source,
    *,
    mapping: Mapping = None,
    model: Annotated[
        str | None, typer.Option(help="A base model: check the pairs against its tokenizer and chat template.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="The longest pair to train on, in tokens.", min=1)] = None,
    repair: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Save the cleaned pairs here: .csv, .jsonl or .parquet.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how a preference file is read and what is wrong with it, and repair what can be repaired."""
    from ..preferences.doctor import examine

    if max_length and not model:
        raise RecipeError("--max-length counts tokens, and whose they are is not said. Add --model.")
    preferences = read_preferences(file, mapping=mapping_of(mapping))
    model = resolve_model(model)
    findings = examine(preferences, model_check=_tokenizer_check(model, max_length) if model else None)
    mended = write_repaired(preferences, repair) if repair else None
    if as_json:
        report = preferences.report() | {"findings": [asdict(finding) for finding in findings]}
        report |= {"repair": asdict(mended)} if mended else {}
        print(json.dumps(report, indent=2, default=str))
        return
    _print_preferences(preferences)
    print_findings(findings)
    if not findings:
        print("Nothing looks wrong with these pairs.")
    given = f" --map {shlex.quote(','.join(mapping))}" if mapping else ""
    print(mended.sentence() if mended else f"Train on it:  dpo-hub train {shlex.quote(file)}{given}")


def _tokenizer_check(model: str, max_length: int | None) -> Callable[[Iterable[PreferencePair]], list[Finding]]:
    """Return a check of pairs against the chat template and tokenizer of *model*."""
    from ..preferences.doctor import examine_with
    from ..training.policy import load_base_tokenizer, quiet

    quiet()
    tokenizer, length = load_base_tokenizer(model), max_length or Recipe.for_model(model).max_length
    return lambda pairs: examine_with(tokenizer, pairs, length)


def _print_preferences(preferences: Preferences) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    report = preferences.report()
    print(f"{preferences.source}: {pluralise(report['pairs'], 'pair')} from {pluralise(report['rows'], 'row')}")
    print(f"Read as: {preferences.read_as()}")
    print(f"File: {'; '.join(preferences.notes)}")
    for reason, rows in preferences.left_out.items():
        print(f"Left out: {pluralise(len(rows), 'row')}, {reason} ({format_rows(rows)})")
    table = Table("row", "prompt", "chosen", "rejected", box=box.SIMPLE_HEAD, expand=True)
    for pair in preferences.pairs[:SHOWN_PAIRS]:
        parts = (text_of(part) for part in (pair.prompt, pair.chosen, pair.rejected))
        table.add_row(str(pair.row), *(Text(part if len(part) < 300 else f"{part[:300]} …") for part in parts))
    Console().print(table)
