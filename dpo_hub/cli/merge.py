"""The command that merges a run's adapter into its base model. Does not import torch."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ModelError
from ..hub.export import Exported, export
from ..hub.ollama import create_command
from ..runs.base_model import describe_origin
from ..runs.run import Run
from .options import Json, RunName

cli = typer.Typer()


@cli.command()
def merge(
    run: RunName,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder.")],
    *,
    gguf: Annotated[
        bool,
        typer.Option(
            "--gguf", help="Also make a GGUF file, with llama.cpp (on the PATH, or in the folder LLAMA_CPP names)."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Merge a finished run's adapter into its base model: a folder for Transformers, Ollama and llama.cpp."""
    found = Run.open(run)
    done = export(found, out, gguf=gguf)
    create = create_command(done.folder, done.name)
    if as_json:
        print(json.dumps(asdict(done) | {"ollama": create}, indent=2, default=str))
    else:
        _print_export(found, done)
        print(f"For Ollama:  {create}")
    if done.why_not and not done.commands:
        raise ModelError(done.why_not)


def _print_export(run: Run, done: Exported) -> None:
    merged = done.merged
    base = "base model (as it was saved, not in 4 bits)" if run.recipe.load_in_4bit else "base model"
    if origin := run.report.get("base"):
        base = f"base model ({describe_origin(origin)})"
    print(f"Merged: {done.folder} ({merged.dtype})")
    print(
        f"  Loaded again, its logits on {merged.prompts} prompts differ from those of {base} and adapter by at most "
        f"{merged.worst:.1e} of the largest, and {merged.share:.0%} of the adapter's effect is there."
    )
    if done.gguf:
        print(f"GGUF: {done.gguf}")
    if done.commands:
        print(f"No GGUF was made: {done.why_not} To make it:")
        print(*(f"  {command}" for command in done.commands), sep="\n")
