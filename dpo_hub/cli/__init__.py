"""The command line: one command per stage, each a few lines. Bad input gives one line on stderr and exit code 2."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from ..app import launch
from ..errors import DPOHubError, explaining_disk_full
from ..runs.run import home
from .chat import cli as chat_cli
from .check import cli as check_cli
from .demo import cli as demo_cli
from .jobs import cli as jobs_cli
from .judge import cli as judge_cli
from .lens import cli as lens_cli
from .merge import cli as merge_cli
from .publish import cli as publish_cli
from .runs import cli as runs_cli
from .space import cli as space_cli
from .sweep import cli as sweep_cli
from .train import cli as train_cli
from .votes import cli as votes_cli

cli = typer.Typer(
    help="A spreadsheet of preferences goes in, a better model comes out on the Hub, and anyone sees the difference.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

cli.add_typer(check_cli)
cli.add_typer(train_cli)
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


@cli.command()
def app(port: Annotated[int, typer.Option(help="Port on this machine.", min=1, max=65535)] = 7860) -> None:
    """Open the app in your browser: upload, train, compare."""
    launch(server_port=port, inbrowser=True)


def main() -> None:
    """Run the command line; an expected error gives one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal's encoding may lack arrows
    warnings.filterwarnings("ignore", category=SyntaxWarning)  # from Python itself, for cells that look like code
    notes = logging.StreamHandler()
    notes.setLevel(logging.WARNING)
    notes.setFormatter(logging.Formatter("note: %(message)s"))
    logging.getLogger("dpo_hub").addHandler(notes)
    try:
        with explaining_disk_full(home()):
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
