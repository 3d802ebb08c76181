"""Preflight of a run that does not exist yet: what it will cost, and whether it is certain to fail."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import ModelError, PublishError
from ..hub.account import Price, Token, client, price, require_readable, require_valid_card, require_writable
from ..hub.calls import UnreachableError
from ..preferences import PreferencePair, Preferences, split_pairs
from ..preferences.doctor.findings import Finding, by_severity, of_all
from ..recipe import Recipe
from ..runs.progress import duration
from ..runs.run import home
from .engine import choose_engine, using_engine
from .fitting import fit_to_memory
from .forecast import Outlook
from .measuring import precomputes_train_reference
from .policy import explaining_template_errors
from .preflight import disk_line, examine, memory_line
from .rehearsal import rehearse
from .tokens import count_tokens, pairs_at
from .trainer import count_lengths, prepare


@dataclass(frozen=True)
class Preflight:
    """The memory, disk space, time and money that a run will need, and the findings about it."""

    pairs: dict[str, int]
    """The number of pairs in each split: `train` and `held_out`."""
    dropped: int
    """Pairs whose prompt alone fills max_length."""
    cut: int
    """Training pairs that max_length truncates."""
    outlook: Outlook
    step_seconds: float | None
    run_seconds: float | None
    """Time for the steps, the reference and the held-out pairs at the measured rate; None if a batch does not fit."""
    price: Price | None
    findings: list[Finding] = field(default_factory=list)

    @property
    def same_card(self) -> bool:
        """Whether this machine has the same accelerator as the machine asked for, so that their speeds compare."""
        card = self.price.accelerator if self.price else ""
        here = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        return any(word in here.replace("-", " ").split() for word in card.split() if any(map(str.isdigit, word)))

    @property
    def cost(self) -> float | None:
        """US dollars on the machine asked for, assuming the speed of this one."""
        if self.price is None or self.run_seconds is None:
            return None
        return self.price.hourly * self.run_seconds / 3600

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"outlook": self.outlook.as_dict(), "cost": self.cost}


def run_preflight(
    preferences: Preferences,
    recipe: Recipe,
    *,
    flavor: str | None = None,
    publish_to: str | None = None,
    token: Token = None,
) -> Preflight:
    """Prepare a run of *recipe* on *preferences*, time two steps, and leave no trace.

    Args:
        preferences: the pairs.
        recipe: what would be trained and how.
        flavor: the Hub machine to price.
        publish_to: the repository that the adapter will be published to.
        token: for the Hub; None for the user's own login.

    Raises:
        PreferencesError: there are too few pairs to split.
        RecipeError: there is no such machine.
        ModelError: access to the base model is denied, it cannot be loaded or trained, or no prompt fits into
            max_length.
    """
    findings, cost = _of_the_hub(recipe, flavor=flavor, publish_to=publish_to, token=token)
    splits = split_pairs(preferences.pairs, recipe.held_out, seed=recipe.seed)
    parts: dict[str, list[PreferencePair]] = {"train": [], "held_out": []}
    for pair, split in zip(preferences.pairs, splits, strict=True):
        parts[split].append(pair)
    with tempfile.TemporaryDirectory() as folder, explaining_template_errors():
        trainer: Any = prepare(recipe, parts["train"], parts["held_out"], Path(folder))
        lengths = count_lengths(trainer, {name: len(pairs) for name, pairs in parts.items()}, recipe)
        recipe, _ = choose_engine(trainer, recipe)
        with using_engine(trainer, recipe):
            outlook = fit_to_memory(trainer, recipe, home())
            fits = outlook.fitting_batch_size == recipe.batch_size
            step, whole = _pace(trainer, recipe, outlook) if fits else (None, None)
        kept = {"train": len(trainer.train_dataset), "held_out": len(trainer.eval_dataset)}
    dropped, cut = sum(lengths["dropped"].values()), lengths["cut"]["train"]
    findings += [*examine(outlook), *_of_lengths(cut, kept["train"])]
    return Preflight(kept, dropped, cut, outlook, step, whole, cost, by_severity(findings))


def _of_lengths(cut: int, pairs: int) -> Iterator[Finding]:
    if cut:
        message = f"Of {of_all(cut, pairs, 'training pair')} max_length cuts off the end."
        advice = "Raise --max-length where memory allows: what is cut is not learnt."
        yield Finding("cut", message, cut, (), advice, "medium")


def _of_the_hub(
    recipe: Recipe, *, flavor: str | None, publish_to: str | None, token: Token
) -> tuple[list[Finding], Price | None]:
    """Ask the Hub everything it can answer before loading anything; if it cannot be reached, report that."""
    found: list[Finding] = []
    found += _findings_from("base-model", lambda: require_readable(recipe.model, client(token)))
    if found and found[0].severity == "high":
        raise ModelError(found[0].message)  # without a base model nothing else can be checked
    if publish_to:
        found += _findings_from("publishing", lambda: require_writable(publish_to, client(token)))
        found += _findings_from("publishing", lambda: require_valid_card(recipe, client(token)))
    cost: Price | None = None
    if flavor:
        try:
            cost = price(flavor, client(token))
        except UnreachableError as error:
            found.append(_unchecked("price", error))
    return found, cost


def _findings_from(kind: str, ask: Callable[[], object]) -> Iterator[Finding]:
    try:
        ask()
    except UnreachableError as error:
        yield _unchecked(kind, error)
    except PublishError as error:
        yield Finding(kind, str(error), 0, (), "", "high")


def _unchecked(kind: str, error: UnreachableError) -> Finding:
    return Finding(kind, str(error), 0, (), "", "medium")


def _pace(trainer: Any, recipe: Recipe, outlook: Outlook) -> tuple[float, float]:
    """Seconds for a step of mean size, and for the whole run."""
    batches, known = outlook.batches, precomputes_train_reference(trainer, recipe)
    typical = [pairs_at(trainer.train_dataset, batch) for batch in batches.typical]
    largest = pairs_at(trainer.train_dataset, batches.largest)
    rehearse(trainer, [largest], reference_known=known)  # warm-up: the first step also allocates the memory
    took = rehearse(trainer, typical, reference_known=known)
    tokens = sum(count_tokens(pairs, recipe) for pairs in typical) / len(typical)
    epoch = batches.tokens / recipe.epochs
    held_out = epoch * len(trainer.eval_dataset) / len(trainer.train_dataset)
    training = batches.tokens / tokens * took.seconds
    looking = (2 * held_out + (epoch if known else 0)) / tokens * took.forward_seconds
    return batches.tokens / batches.steps / tokens * took.seconds, training + looking


def report_lines(ahead: Preflight) -> Iterator[tuple[str, str]]:
    """The report for people, as lines of a name and its figures."""
    outlook, batches = ahead.outlook, ahead.outlook.batches
    share = outlook.trainable / outlook.parameters
    yield "trained", f"{outlook.trainable:,} of {outlook.parameters:,} parameters ({share:.1%}), on {outlook.device}"
    dropped = f", {ahead.dropped} dropped by max_length" if ahead.dropped else ""
    cut = f", {ahead.cut} cut by it" if ahead.cut else ""
    yield "pairs", f"{ahead.pairs['train']:,} to train on, {ahead.pairs['held_out']:,} held out{dropped}{cut}"
    yield "steps", f"{batches.steps:,}, with {batches.tokens:,} tokens through the model ({outlook.engine})"
    for line in (memory_line(outlook.memory), disk_line(outlook.disk)):
        name, _, figures = line.partition(": ")
        yield name, figures
    if ahead.run_seconds is not None:
        pace = f"{ahead.step_seconds:.2g} s a step, measured on two of mean size"
        yield "time", f"about {duration(ahead.run_seconds)} on this machine: {pace}"
    if ahead.price is not None and ahead.cost is not None:
        machine = f"{ahead.price.flavor} ({ahead.price.accelerator or 'no accelerator'})"
        if ahead.same_card:
            speed = "at the speed of the same card here"
        else:
            speed = "if it ran at this machine's speed, for its own is not known here"
        yield "cost", f"${ahead.cost:,.2f} on {machine} at ${ahead.price.hourly:,.2f} an hour, {speed}"
