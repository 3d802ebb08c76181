"""The command that publishes a run. Does not import torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer

from ..runs.run import Run
from .options import Json, RunName, Token

cli = typer.Typer()


@cli.command()
def publish(  # noqa: PLR0913  # one parameter per option
    run: RunName,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the Hub.")],
    *,
    public: Annotated[bool, typer.Option("--public/--private", help="Who can see it.")] = False,
    with_data: Annotated[
        bool, typer.Option("--with-data", help="Also publish the pairs, as the dataset OWNER/NAME-preferences.")
    ] = False,
    merged: Annotated[
        bool,
        typer.Option("--merge", help="Also publish the whole model with the adapter merged, as OWNER/NAME-merged."),
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare/--no-compare", help="Check that the adapter on the Hub computes the same.")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Overwrite changes that were made there by other means.")
    ] = False,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Publish a finished run's adapter and card to the Hub, download them again, and compare."""
    from ..hub.account import client
    from ..hub.publish import publish as publish_run

    found = Run.open(run)
    with reporting_stages() as tell:
        published = publish_run(
            found,
            repo,
            api=client(token),
            private=not public,
            with_data=with_data,
            merged=merged,
            compare=compare,
            overwrite=overwrite,
            tell=tell,
        )
    if as_json:
        print(json.dumps({"published": [asdict(one) for one in published]}, indent=2))
        return
    for one in published:
        print(f"Published: {one.url} ({'private' if one.private else 'public'})\n  {one.proof.sentence()}")


@contextmanager
def reporting_stages() -> Iterator[Callable[[str], None]]:
    """Report the current stage on stderr, with the Hub client's progress bars, if it is a terminal."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if sys.stderr.isatty():
        yield lambda stage: print(f"{stage} …", file=sys.stderr)
    else:
        with disable_progress_bars():
            yield lambda _: None
