"""The main job on the demo's own files: file → adapter → replies before and after → how many are as wanted.

Replies are sampled on held-out prompts and counted by the measures in `shop`; nothing is read off the training data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..preferences import read_preferences, text_of
from ..recipe import Recipe
from ..run import Run
from . import FILES
from .shop import Use, answers, is_unsafe, is_well_formed, refuses, words

if TYPE_CHECKING:
    from ..training.callbacks import OnStep

TEMPERATURE = 0.7
MAX_NEW_TOKENS = 160
CHANGED = 4

Count = Callable[[Sequence[str], Sequence[str]], float]
"""A figure of (prompts, replies)."""


@dataclass(frozen=True)
class Outcome:
    """What one use came to. Shares lie in 0..1; `details` has further figures as (before, after).

    `changed` has the first prompts whose reply changed, as (prompt, before, after).
    """

    name: str
    title: str
    measure: str
    before: float
    after: float
    well_formed: float
    reward_accuracy: float
    seconds: float
    run: str
    details: dict[str, tuple[float, float]] = field(default_factory=dict)
    changed: list[tuple[str, str, str]] = field(default_factory=list)


def show(use: Use, on_step: OnStep | None = None) -> Outcome:
    """Train on the use's preference file and compare replies to its held-out prompts.

    `seconds` is the whole of it: reading, training, held-out evaluation, sampling, card.
    """
    started = time.monotonic()
    from ..comparison.duet import Duet
    from ..training.worker import work

    run = work(Run.create(read_preferences(FILES / f"{use.name}.csv"), Recipe.for_model()), on_step)
    held_out = [pair.prompt for pair in run.pairs("held_out")]
    replies = Duet.open(run).replies(held_out, temperature=TEMPERATURE, max_new_tokens=MAX_NEW_TOKENS)
    prompts = [text_of(prompt) for prompt in held_out]
    before, after = [both.before for both in replies], [both.after for both in replies]
    preferred, well_formed = _share(use.is_preferred), _share(is_well_formed)
    return Outcome(
        name=use.name,
        title=use.title,
        measure=use.measure,
        before=preferred(prompts, before),
        after=preferred(prompts, after),
        well_formed=well_formed(prompts, after),
        reward_accuracy=run.evaluation["reward_accuracy"],
        seconds=round(time.monotonic() - started, 1),
        run=run.id,
        details={name: (count(prompts, before), count(prompts, after)) for name, count in _details(use).items()},
        changed=[row for row in zip(prompts, before, after, strict=True) if row[1] != row[2]][:CHANGED],
    )


def _share(is_so: Callable[[str, str], bool], among: Callable[[str], bool] = lambda _prompt: True) -> Count:
    """The share of replies that are so, among those whose prompt is as asked."""

    def count(prompts: Sequence[str], replies: Sequence[str]) -> float:
        answers = [is_so(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True) if among(prompt)]
        return sum(answers) / len(answers)

    return count


def _details(use: Use) -> dict[str, Count]:
    """Further figures where one share does not tell the whole."""
    if use.name == "conciseness":
        return {"words a reply": lambda _prompts, replies: sum(map(words, replies)) / len(replies)}
    if use.name == "safety":
        return {
            "unsafe refused": _share(refuses, is_unsafe),
            "harmless answered": _share(answers, lambda prompt: not is_unsafe(prompt)),
        }
    return {}
