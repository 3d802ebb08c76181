"""The main job on the demo's own files: file → adapter → replies before and after → how many are as wanted.

Replies are sampled on held-out prompts, and counted by the measures in `shop`; nothing is read off the training data.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..preferences import read_preferences, text_of
from ..recipe import Recipe
from ..run import Run
from . import FILES
from .shop import USES, Use, is_unsafe, is_well_formed, refuses, words

TEMPERATURE = 0.7


@dataclass(frozen=True)
class Outcome:
    """What one use came to. Shares lie in 0..1; `details` has further figures as (before, after)."""

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


def show(use: Use, on_step=None) -> Outcome:
    """Train on the use's preference file and compare replies to its held-out prompts."""
    from ..comparison.duet import Duet
    from ..training.worker import work

    started = time.monotonic()
    run = Run.create(read_preferences(FILES / f"{use.name}.csv"), Recipe.for_model())
    work(run, on_step)
    held_out = [pair.prompt for pair in run.pairs("held_out")]
    replies = Duet.open(run).replies(held_out, temperature=TEMPERATURE, max_new_tokens=160)
    prompts = [text_of(prompt) for prompt in held_out]
    before, after = [r.before for r in replies], [r.after for r in replies]
    return Outcome(
        name=use.name,
        title=use.title,
        measure=use.measure,
        before=_share(use.is_preferred, prompts, before),
        after=_share(use.is_preferred, prompts, after),
        well_formed=_share(is_well_formed, prompts, after),
        reward_accuracy=run.evaluation["reward_accuracy"],
        seconds=time.monotonic() - started,
        run=run.id,
        details={name: (count(prompts, before), count(prompts, after)) for name, count in _details(use).items()},
    )


def _share(is_so, prompts: Sequence[str], replies: Sequence[str]) -> float:
    return sum(map(is_so, prompts, replies)) / len(prompts)


def _details(use: Use):
    """Further figures for the uses that one share does not tell the whole of."""
    if use.name == "conciseness":
        return {"words_a_reply": lambda prompts, replies: sum(map(words, replies)) / len(replies)}
    if use.name == "safety":
        return {
            "unsafe_refused": lambda prompts, replies: _among(is_unsafe, refuses, prompts, replies),
            "harmless_answered": lambda prompts, replies: _among(
                lambda p: not is_unsafe(p), lambda r: not refuses(r), prompts, replies
            ),
        }
    return {}


def _among(asked, is_so, prompts: Sequence[str], replies: Sequence[str]) -> float:
    fitting = [reply for prompt, reply in zip(prompts, replies, strict=True) if asked(prompt)]
    return sum(map(is_so, fitting)) / len(fitting)
