"""The commands for blind votes: vote in the terminal, and see the result. Only voting imports torch."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import PreferencesError, RunError
from ..preferences import text_of
from ..preferences.export import atomic_write, write_preferences
from ..preferences.pairs import Messages
from ..runs.run import Run
from .options import Json, RunName
from .output import print_edited

if TYPE_CHECKING:
    from ..comparison.votes import Ballot, Choice, Vote

cli = typer.Typer()

KEYS: dict[str, Choice] = {"l": "left", "r": "right", "t": "tie", "b": "both_bad"}
ASKED = "Which is better? l(eft), r(ight), t(ie), b(oth bad), e(dit one), q(uit): "


@cli.command()
def vote(  # noqa: PLR0913  # one parameter per option
    run: RunName = "last",
    *,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt to ask; may be repeated.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ask each line of this text file.", exists=True, dir_okay=False)
    ] = None,
    count: Annotated[int, typer.Option(help="How many held-out prompts to ask if you give none.", min=1)] = 10,
    voter: Annotated[
        str,
        typer.Option(
            help="The name to record with the votes.", envvar=["LOGNAME", "USER", "USERNAME"], show_envvar=False
        ),
    ] = "me",
    temperature: Annotated[
        float, typer.Option(help="Sampling temperature; 0 always takes the most likely token.", min=0)
    ] = 0.7,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the replies; by default a new one each time.", min=0, max=2**31 - 1)
    ] = None,
) -> None:
    """Vote blindly between replies before and after training, and see the result at the end."""
    from ..comparison.votes import ballots, cast, least_voted

    found = Run.open(run).require_finished()
    given: list[Messages] = [[{"role": "user", "content": text}] for text in (*(prompt or ()), *_lines(prompts))]
    asked = given or least_voted(found, voter)
    from ..comparison.duet import Duet
    from ..training.policy import quiet

    quiet()
    duet, number, count = Duet.open(found), 0, len(given) or min(count, len(asked))
    seed = secrets.randbelow(2**31) if seed is None else seed
    replying = partial(duet.replies, temperature=temperature, seed=seed)
    for number, ballot in enumerate(ballots(asked, replying, count=count), 1):
        if not (filled := _ask(ballot, f"{number} of {count}", voter)):
            break
        cast(found, filled)
    else:
        if number < count:
            print("To all other prompts both sides reply the same.")
    _print_tally(found)
    _into_card(found)


def _lines(path: Path | None) -> list[str]:
    """Return the non-blank lines of a text file.

    Raises:
        PreferencesError: there are none.
    """
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines() if path else []
    if path and not any(map(str.strip, lines)):
        raise PreferencesError(f"{path} has no line to ask. Write a prompt on each line.")
    return [line.strip() for line in lines if line.strip()]


def _ask(ballot: Ballot, place: str, voter: str) -> Vote | None:
    """Show a ballot and ask for a vote; None if the voter quits."""
    _show(ballot, place)
    while (said := _read(ASKED)) not in (None, "q"):
        if said in KEYS:
            return ballot.vote(KEYS[said], voter=voter)
        if said == "e" and (side := _read("Which one comes nearer? l or r: ")) in ("l", "r"):
            edit = _read_reply()
            return ballot.vote(KEYS[side], voter=voter, edit=edit) if edit is not None else None
    return None


def _show(ballot: Ballot, place: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("left", "right", title=Text(f"{place}: {text_of(ballot.prompt)}"), title_justify="left", expand=True)
    table.add_row(*map(Text, ballot.shown))
    Console().print(table)


def _read(question: str = "") -> str | None:
    """Read a line from the user; None at the end of the input or on Ctrl-C."""
    try:
        return input(question).rstrip()
    except (EOFError, KeyboardInterrupt):
        print()
        return None


def _read_reply() -> str | None:
    """Read a better reply of any number of lines; None if the user does not end it with a full stop."""
    print("Write a better one, and then a line with nothing but a full stop.")
    lines = []
    while (line := _read()) != ".":
        if line is None:
            return None
        lines.append(line)
    return "\n".join(lines)


@cli.command()
def votes(
    run: RunName = "last",
    *,
    to: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Save the votes as pairs to train on: .csv, .jsonl or .parquet.")
    ] = None,
    card: Annotated[bool, typer.Option("--into-card", help="Add the win rate to the run's card.")] = False,
    as_json: Json = False,
) -> None:
    """Summarise the blind votes on a run, or save them as preference pairs."""
    from ..comparison.tally import tally
    from ..comparison.votes import votes_of

    found = Run.open(run)
    if as_json:
        print(json.dumps({"run": found.id, **tally(votes_of(found)).as_dict()}, indent=2))
    else:
        _print_tally(found)
    if to:
        _write(found, votes_of(found), to, quiet=as_json)
    if card:
        _into_card(found)


def _print_tally(run: Run) -> None:
    from ..comparison.tally import tally
    from ..comparison.votes import votes_of

    told = tally(votes_of(run))
    print("\n".join(told.sentences()))
    if not told.votes:
        print(f"Cast one:  dpo-hub vote {run.id}")


def _write(run: Run, votes: Sequence[Vote], to: Path, *, quiet: bool) -> None:
    """Write the pairs made from *votes*, and a file beside them that says whose votes they were.

    Raises:
        RunError: the votes yield no pair.
    """
    from ..comparison.votes import FILE, preferences_of, provenance

    made = preferences_of(votes, source=f"{run.id}/{FILE}")
    if not made.pairs:
        raise RunError(f"{made.sentence()} Vote for a side, or edit a reply:  dpo-hub vote {run.id}")
    write_preferences(made.pairs, to)
    beside = to.with_name(f"{to.name}.provenance.json")
    with atomic_write(beside) as file:
        file.write(json.dumps(provenance(run, votes, made.pairs), indent=2, ensure_ascii=False).encode())
    if not quiet:
        print(
            f"{made.sentence()}\nWhose votes they were: {beside}\nTrain on them:  dpo-hub train {shlex.quote(str(to))}"
        )


def _into_card(run: Run) -> None:
    from ..comparison.tally import update_card

    if not update_card(run.require_finished()):
        print_edited(run)
