"""The command that shows what preference tuning does: it trains on bundled files, and reports what changed."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ..demo.showcase import TEMPERATURE, Outcome, run_demo, suite_for
from ..errors import ModelError, RecipeError
from ..recipe import DEMO_MODEL, SMOLLM2
from ..runs.progress import progress
from ..runs.run import Run
from ..training import smollm2
from .options import Json
from .output import Show, progress_bar

if TYPE_CHECKING:
    from rich.table import Table


cli = typer.Typer()

SIDE_BY_SIDE = 3
"""Number of prompts whose replies are shown before and after training."""


@cli.command()
def demo(
    use: Annotated[str, typer.Argument(help="conciseness, tone, helpfulness, safety or brand-voice.")] = "conciseness",
    *,
    all_uses: Annotated[bool, typer.Option("--all", help="Run all five, one after another.")] = False,
    model: Annotated[
        str,
        typer.Option(
            help="smollm2, a real assistant with 135 million parameters, or demo, a tiny model that takes 30 s."
        ),
    ] = SMOLLM2,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Train on a preference file that ships with the package, and show what changed."""
    uses = suite_for(model).uses
    if not all_uses and use not in uses:
        raise RecipeError(f"{use!r} is not one of the uses: {', '.join(uses)}. Or give --all.")
    from ..training.policy import quiet

    quiet()
    model = _model_or_fallback(model)
    outcomes = []
    for name in uses if all_uses else [use]:
        chosen = suite_for(model).uses[name]
        with progress_bar(chosen.title) as bar, _reporting_stages(bar) as on_step:
            outcomes.append(run_demo(chosen, model, on_step, seed=seed))
    if as_json:
        print(json.dumps({"uses": [asdict(outcome) for outcome in outcomes]}, indent=2))
    else:
        _print_outcomes(outcomes)


def _model_or_fallback(model: str) -> str:
    """Return *model* itself, or the embedded one if SmolLM2 is not available."""
    if model != SMOLLM2:
        return model
    try:
        if (found := smollm2.resolve_name(model)) == SMOLLM2:
            smollm2.folder()
    except ModelError as error:
        print(f"note: {error}\nThe tiny model that ships with the package is used instead.", file=sys.stderr)
        return DEMO_MODEL
    return found


@contextmanager
def _reporting_stages(bar: Show) -> Iterator[Show]:
    """Report the current stage on stderr, and the reply to a held-out prompt as training progresses."""
    began, seen = time.monotonic(), 0

    class Stages(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno < logging.WARNING:  # warnings are printed as notes
                print(f"{time.monotonic() - began:4.0f} s  {record.getMessage()}", file=sys.stderr)

    def on_step(last: Mapping[str, float], steps: int) -> None:
        nonlocal seen
        bar(last, steps)
        looks = Run.open("last").evaluations
        if len(looks) > seen:
            seen, sample = len(looks), looks[-1]["replies"][0]
            log.info(
                "after step %d of %d it answers %r: %s", looks[-1]["step"], steps, sample["prompt"], sample["reply"]
            )

    log, stages = logging.getLogger("dpo_hub"), Stages(logging.INFO)
    log.addHandler(stages)
    try:
        yield on_step
    finally:
        log.removeHandler(stages)


def _print_outcomes(outcomes: Sequence[Outcome]) -> None:
    from rich.console import Console

    console = Console()
    for outcome in outcomes:
        console.print(_side_by_side(outcome, count=SIDE_BY_SIDE if len(outcomes) == 1 else 1))
    first = outcomes[0]
    print(f"Replies to {first.prompts} held-out prompts, sampled at temperature {TEMPERATURE}, with 95% intervals")
    console.print(_table(outcomes))
    last = Run.open(outcomes[-1].run)
    if len(outcomes) == 1:
        print(progress(last).sentence)
    print(f"Base model: {first.model}\nRun folder: {last.path}")
    print(f'Talk to it:  dpo-hub chat {last.id} "{first.changed[0][0] if first.changed else "Hello!"}"')


def _side_by_side(outcome: Outcome, *, count: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = f"{outcome.title}: the first held-out prompts whose reply changed"
    table = Table("prompt", "before", "after", title=title, title_justify="left", box=box.SIMPLE_HEAD, expand=True)
    for changed in outcome.changed[:count]:
        table.add_row(*map(Text, changed), end_section=True)
    return table


def _table(outcomes: Sequence[Outcome]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table("use", "", "before", "after", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in table.columns[2:]:
        column.justify = "right"
    for outcome in outcomes:
        for name, before, after in _rows(outcome):
            table.add_row(outcome.title if name == outcome.measure else "", name, before, after)
        table.add_section()
    return table


def _rows(outcome: Outcome) -> Iterator[tuple[str, str, str]]:
    """Yield the reported rows of an outcome: its measure, other figures of the replies, and what must not get worse."""
    yield (
        outcome.measure,
        f"{outcome.before:.0%} ({_range(outcome.before_interval)})",
        f"{outcome.after:.0%} ({_range(outcome.after_interval)})",
    )
    for name, (before, after) in outcome.details.items():
        shown = "{:.1f}" if name.startswith("words") else "{:.0%}"
        yield name, shown.format(before), shown.format(after)
    if guards := outcome.guards:
        yield "repeats itself", f"{guards.repeats[0]:.1%}", f"{guards.repeats[1]:.1%}"
        yield "surprise for the base model", f"{guards.surprise[0]:.2f} nats", f"{guards.surprise[1]:.2f} nats a token"
        yield (
            "200 other answers, log-likelihood",
            f"{guards.general[0]:.2f} nats",
            f"{guards.general[1]:.2f} nats a token",
        )
        yield "distance on those, KL", "0", f"{guards.general_kl:.3f} nats a token"
    yield "reward accuracy on held-out pairs", "", f"{outcome.reward_accuracy:.0%}"
    yield "total time", "", f"{outcome.seconds:.0f} s"


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.0%} to {interval[1]:.0%}"
