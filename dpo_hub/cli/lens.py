"""The commands that use a run's adapter as a reward model: score replies, evaluate pairs."""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import PreferencesError, RecipeError
from ..preferences import read_preferences
from ..preferences.pairs import format_rows, pluralise
from ..preferences.replies import ReplyFile, require_output_path
from ..runs.headline import headline_of
from ..runs.run import Run
from .options import Json, Mapping, RunName, mapping_of
from .output import print_edited

if TYPE_CHECKING:
    from rich.text import Text

    from ..comparison.accuracy import Accuracy
    from ..comparison.lens import Lens, Reading
    from ..comparison.scores import Scores

cli = typer.Typer()

OUTPUT_SUFFIXES = {".csv": ".csv", ".tsv": ".csv", ".txt": ".csv", ".parquet": ".parquet"} | dict.fromkeys(
    (".jsonl", ".ndjson", ".json"), ".jsonl"
)
"""The suffix of a file of scores, by the suffix of the scored file."""

COLOUR_THRESHOLDS = (0.1, 0.5)
"""Shares of the strongest token's reward from which a token is coloured, and from which it is also bold."""


@cli.command()
def score(  # noqa: PLR0913  # one parameter per option
    run: RunName,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="A file of prompts and replies, or a Hub dataset: OWNER/NAME:SPLIT."),
    ] = None,
    *,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="PART=COLUMN,…",
            help="Name the columns, as in prompt=ask,reply=text; repeat it for more replies.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Save the scores here: .csv, .jsonl or .parquet.", show_default="FILE's name with .scored"),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Score replies to this prompt, and show each token.")] = None,
    reply: Annotated[list[str] | None, typer.Option(help="A reply to score; several are ranked.")] = None,
    as_json: Json = False,
) -> None:
    """Score replies with a run's adapter as the reward model: those of a file, or given ones token by token."""
    found = Run.open(run).require_finished()
    if file is None and prompt and reply:
        _score_here(found, prompt, reply, as_json=as_json)
    elif file and not (prompt or reply):
        _score_file(found, file, _columns(mapping), out or _beside(file), as_json=as_json)
    else:
        raise RecipeError("Give either a FILE to score, or --prompt and at least one --reply.")


def _open(run: Run) -> Lens:
    from ..comparison.lens import Lens
    from ..training.policy import quiet

    quiet()
    return Lens.open(run)


def _columns(written: list[str] | None) -> dict[str, list[str]]:
    """Parse the mappings; several of *written* may name the same part."""
    columns: dict[str, list[str]] = {}
    for one in written or ():
        for part, column in mapping_of([one]).items():
            columns.setdefault(part, []).append(column)
    return columns


def _beside(file: str) -> Path:
    path = Path(file.removesuffix(".gz"))
    if path.suffix.lower() not in OUTPUT_SUFFIXES:
        raise PreferencesError(f"Where {file} scored shall go is not known. Name a file: --out scored.csv")
    return path.with_name(f"{path.stem}.scored{OUTPUT_SUFFIXES[path.suffix.lower()]}")


def _score_file(run: Run, file: str, columns: dict[str, list[str]], out: Path, *, as_json: bool) -> None:

    require_output_path(out, file)
    replies = ReplyFile.open(file, columns)
    from ..comparison.scores import score

    scores = score(_open(run), replies)
    scores.write(out)
    if as_json:
        kept = {"out": str(out), "scored": scores.count, "cut": scores.cut, "columns": scores.added}
        print(
            json.dumps(kept | {"left_out": {reason: len(rows) for reason, rows in scores.left_out.items()}}, indent=2)
        )
    else:
        _print_scores(scores, out)


def _print_scores(scores: Scores, out: Path) -> None:

    parts = {**scores.file.prompt_columns.columns, "reply": ", ".join(scores.file.replies)}
    print(f"Read as: {', '.join(f'{part} ← `{column}`' for part, column in parts.items())}")
    print(f"Scored: {scores.count:,} of {len(scores.rewards):,} replies")
    for reason, rows in scores.left_out.items():
        print(f"Left without a reward: {pluralise(len(rows), 'row')}, {reason} ({format_rows(rows)})")
    if scores.cut:
        print(f"Cut off at max_length: {scores.cut:,}, scored by what is left")
    print(f"Written to {out}, with {', '.join(scores.added)}")


def _score_here(run: Run, prompt: str, replies: list[str], *, as_json: bool) -> None:
    ranked = _open(run).rank(prompt, replies)
    if as_json:
        told = [{"reply": reply, "reward": reading.reward, **asdict(reading)} for reply, reading in ranked]
        print(json.dumps({"prompt": prompt, "replies": told}, indent=2, ensure_ascii=False))
    else:
        _print_readings([reading for _, reading in ranked])


def _print_readings(readings: list[Reading]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    most = max((abs(worth) for reading in readings for worth in reading.rewards), default=0.0) or 1.0
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("rank", "reward"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("liked green, avoided red")
    for rank, reading in enumerate(readings, 1):
        table.add_row(str(rank), f"{reading.reward:+.3f}", _coloured(reading, most))
    Console(highlight=False).print(table)


def _coloured(reading: Reading, most: float) -> Text:
    """Return the reply with each token coloured, or also bold, by its reward relative to *most*."""
    from rich.text import Text

    text = Text()
    for token, worth in zip(reading.tokens, reading.rewards, strict=True):
        strength = bisect(COLOUR_THRESHOLDS, abs(worth) / most)
        text.append(token, style=("", "bold ")[strength > 1] + ("green" if worth > 0 else "red") if strength else "")
    return text


@cli.command()
def evaluate(
    run: RunName,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="Any preference file, or a Hub dataset: OWNER/NAME:SPLIT. By default, the run's held-out pairs.",
        ),
    ] = None,
    *,
    prompts: Annotated[
        int | None, typer.Option(help="Without FILE: how many held-out prompts to answer.", min=2)
    ] = None,
    mapping: Mapping = None,
    as_json: Json = False,
) -> None:
    """Measure a run again on its held-out pairs, or how well its adapter orders the pairs of any preference file."""
    found = Run.open(run).require_finished()
    if file is None:
        if mapping:
            raise RecipeError("--map says which column of a FILE is which, and there is no FILE. Name one.")
        _measure_again(found, prompts, as_json=as_json)
    elif prompts:
        raise RecipeError("--prompts is for the run's own held-out prompts: leave out either that or FILE.")
    else:
        _evaluate_file(found, file, mapping, as_json=as_json)


def _measure_again(run: Run, prompts: int | None, *, as_json: bool) -> None:
    from ..comparison.evaluation import PROMPTS, measure_again
    from ..training.policy import quiet

    quiet()
    evaluation, rendered = measure_again(run, most=prompts or PROMPTS)
    if as_json:
        print(json.dumps({"run": run.id, **evaluation}, indent=2))
    else:
        print(headline_of(run).sentence)
        _print_rows(_measurements(evaluation))
    if not rendered:
        print_edited(run)


def _measurements(figures: dict[str, float]) -> Iterable[tuple[str, str]]:
    """Yield the measured figures with their confidence intervals, formatted for reading."""

    def told(name: str, form: str) -> str:
        low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
        bounds = f"  (95 % interval {low:{form}} to {high:{form}})" if low is not None and high is not None else ""
        return f"{figures[name]:{form}}{bounds}"

    yield "held-out pairs", f"{figures['pairs']:,}"
    yield "reward accuracy", told("reward_accuracy", ".1%")
    yield "margin", told("margin", "+.3f")
    if "prompts" in figures:
        yield "prompts answered", f"{figures['prompts']:,}"
    if "changed" in figures:
        yield "replies changed", f"{figures['changed']:.0%}"
    if "kl" in figures:
        yield "KL, nats a token", told("kl", ".3f")
    for name, what, form in (
        ("length", "tokens a reply", ".1f"),
        ("distinct_1", "distinct tokens", ".1%"),
        ("distinct_2", "distinct pairs of tokens", ".1%"),
        ("repeated", "repeated 4-grams", ".1%"),
        ("like_chosen", "read like the chosen replies", ".0%"),
    ):
        if f"{name}_before" in figures and f"{name}_after" in figures:
            signed = f"+{form}"
            change = f", {told(f'{name}_change', signed)}" if f"{name}_change" in figures else ""
            yield what, f"{figures[f'{name}_before']:{form}} → {figures[f'{name}_after']:{form}}{change}"


def _evaluate_file(run: Run, file: str, mapping: list[str] | None, *, as_json: bool) -> None:

    preferences = read_preferences(file, mapping=mapping_of(mapping))
    from ..comparison.accuracy import accuracy

    measured = accuracy(_open(run), preferences.pairs, run.pairs("train"))
    if as_json:
        print(json.dumps(asdict(measured) | {"preferences": preferences.report()}, indent=2))
    else:
        print(preferences.sentence())
        _print_accuracy(measured)


def _print_rows(rows: Iterable[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, figure in rows:
        grid.add_row(name, figure)
    Console(highlight=False).print(grid)


def _print_accuracy(measured: Accuracy) -> None:
    _print_rows(_figures(measured))
    for reason, pairs in measured.left_out.items():
        print(f"Left out: {pairs:,}, {reason}")
    if measured.trained_on:
        print(
            f"With a prompt that this run was trained on: {measured.trained_on:,}. "
            "Of these the figures say what it remembers rather than what it has learnt."
        )


def _figures(measured: Accuracy) -> Iterable[tuple[str, str]]:
    low, high = measured.interval
    yield "pairs", f"{measured.pairs:,}"
    yield "reward accuracy", f"{measured.reward_accuracy:.1%}  (95 % interval {low:.1%} to {high:.1%})"
    yield "margin", f"{measured.margin:+.3f}"
    yield "chosen reward", f"{measured.chosen_reward:+.3f}"
    yield "rejected reward", f"{measured.rejected_reward:+.3f}"
    yield "ties", f"{measured.ties:,}"
    yield "cut off at max_length", f"{measured.cut:,}"
