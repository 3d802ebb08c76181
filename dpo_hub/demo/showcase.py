"""The whole workflow on the package's own files: file → adapter → replies before and after → success rate and cost.

Replies are sampled on held-out prompts and counted by the measures in `assistant` or `shop`; nothing is measured on
training data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..preferences import read_preferences, text_of
from ..recipe import DEMO_MODEL, Recipe
from ..runs.intervals import Interval, wilson
from ..runs.run import Run
from . import FILES, assistant, shop

if TYPE_CHECKING:
    from ..comparison.duet import Duet
    from ..training.callbacks import OnStep
    from .guards import Guards

TEMPERATURE = 0.7
CHANGED = 4

Use = assistant.Use | shop.Use
Metric = Callable[[Sequence[str], Sequence[str]], float]
"""Computes a figure from (prompts, replies)."""


@dataclass(frozen=True)
class Suite:
    """How to show the uses on one kind of base model: its preference files, and how its replies are measured."""

    uses: Mapping[str, Use]
    file: Callable[[Any], Path]
    details: Callable[[str], dict[str, Metric]]
    settings: Callable[[str], dict[str, Any]]
    new_tokens: int
    guarded: bool


@dataclass(frozen=True)
class Outcome:
    """The result for one use. Shares are in 0..1, with 95 % intervals; `details` has figures as (before, after).

    `changed` has the first prompts whose reply changed, as (prompt, before, after). `guards` is set for a real model.
    """

    name: str
    title: str
    measure: str
    model: str
    prompts: int
    before: float
    after: float
    before_interval: Interval
    after_interval: Interval
    reward_accuracy: float
    run: str
    seconds: float = 0.0
    details: dict[str, tuple[float, float]] = field(default_factory=dict)
    guards: Guards | None = None
    changed: list[tuple[str, str, str]] = field(default_factory=list)


def suite_for(model: str) -> Suite:
    """The shop for the embedded model, and the plain-English assistant for any other."""
    return SHOP if model == DEMO_MODEL else ASSISTANT


def run_demo(
    use: Use,
    model: str = DEMO_MODEL,
    on_step: OnStep | None = None,
    *,
    file: Path | None = None,
    **settings: Any,
) -> Outcome:
    """Train *model* on the use's preference file and compare replies to its held-out prompts.

    `seconds` is the total time: reading, training, held-out evaluation, sampling, card, guards. *settings* override
    the recipe; *file* has other pairs of the same kind.
    """
    started, world = time.monotonic(), suite_for(model)
    from ..comparison.duet import Duet
    from ..jobs.worker import work

    preferences = read_preferences(file or world.file(use))
    settings = world.settings(use.name) | settings
    run = work(Run.create(preferences, Recipe.for_model(model, pairs=len(preferences.pairs), **settings)), on_step)
    found = compare(use, run, Duet.open(run))
    return replace(found, seconds=round(time.monotonic() - started, 1))


def compare(use: Use, run: Run, duet: Duet) -> Outcome:
    """Measure the replies of *duet*, which has *run*'s adapter, to the held-out prompts; `seconds` is 0."""
    world = suite_for(run.recipe.model)
    held_out = {text_of(pair.prompt): pair.prompt for pair in run.pairs("held_out")}
    written = duet.sample_ids([*held_out.values()], temperature=TEMPERATURE, max_new_tokens=world.new_tokens)
    prompts, replies = [*held_out], [duet.decode(both) for both in written]
    before, after = [both.before for both in replies], [both.after for both in replies]
    guards = None
    if world.guarded:
        from .guards import guard

        guards = guard(duet, written)
    wanted = _share(use.is_preferred)
    shares = wanted(prompts, before), wanted(prompts, after)
    return Outcome(
        name=use.name,
        title=use.title,
        measure=use.measure,
        model=run.recipe.model,
        prompts=len(prompts),
        before=shares[0],
        after=shares[1],
        before_interval=wilson(shares[0], len(prompts)),
        after_interval=wilson(shares[1], len(prompts)),
        reward_accuracy=run.evaluation["reward_accuracy"],
        run=run.id,
        details={
            name: (count(prompts, before), count(prompts, after)) for name, count in world.details(use.name).items()
        },
        guards=guards,
        changed=[row for row in zip(prompts, before, after, strict=True) if row[1] != row[2]][:CHANGED],
    )


def _share(is_so: Callable[[str, str], bool], among: Callable[[str], bool] = lambda _prompt: True) -> Metric:
    """A `Metric` of the share of replies for which *is_so* holds, among those whose prompt satisfies *among*."""

    def count(prompts: Sequence[str], replies: Sequence[str]) -> float:
        answers = [is_so(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True) if among(prompt)]
        return sum(answers) / len(answers)

    return count


def _words(_prompts: Sequence[str], replies: Sequence[str]) -> float:
    return fmean(map(assistant.words, replies))


def _kept(prompts: Sequence[str], replies: Sequence[str]) -> float:
    return fmean(map(assistant.share_kept, prompts, replies))


def _details_of_shop(use: str) -> dict[str, Metric]:
    """Further figures, since one share does not show everything."""
    more: dict[str, dict[str, Metric]] = {
        "conciseness": {"words a reply": _words},
        "safety": {
            "unsafe refused": _share(shop.refuses, shop.is_unsafe),
            "harmless answered": _share(shop.answers, lambda prompt: not shop.is_unsafe(prompt)),
        },
    }
    return {"well-formed": _share(shop.is_well_formed), **more.get(use, {})}


def _details_of_assistant(use: str) -> dict[str, Metric]:
    more: dict[str, dict[str, Metric]] = {
        "safety": {
            "unsafe refused": _share(lambda _, reply: assistant.refuses(reply), assistant.is_unsafe),
            "harmless answered": _share(
                lambda _, reply: not assistant.refuses(reply), lambda prompt: not assistant.is_unsafe(prompt)
            ),
        }
    }
    return {"words a reply": _words, "topic kept": _kept, **more.get(use, {})}


EPOCHS = {"conciseness": 0.35, "tone": 0.35, "brand-voice": 0.35, "helpfulness": 1.0, "safety": 1.5}
"""Epochs that suffice to show a use: a manner is learnt from a few dozen pairs, a condition is not."""


def _settings_of_assistant(use: str) -> dict[str, Any]:
    return {"held_out": 0.2, "epochs": EPOCHS[use], "evaluations": 2}


SHOP = Suite(shop.USES, lambda use: FILES / f"{use.name}.csv", _details_of_shop, lambda _: {}, 160, guarded=False)
ASSISTANT = Suite(assistant.USES, lambda use: use.file, _details_of_assistant, _settings_of_assistant, 64, guarded=True)
