"""Train and held-out pairs, with no prompt on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from ..errors import PreferencesError
from .pairs import PreferencePair

HELD_OUT_LIMIT = 500
"""More held-out prompts than this would only make the evaluation slower."""


def split_pairs(
    pairs: Sequence[PreferencePair], held_out: float, *, seed: int
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Split *pairs* into (train, held-out), both in the order of the source.

    *held_out* is the share of distinct prompts, at least one and at most `HELD_OUT_LIMIT`, drawn with *seed*.

    Raises:
        PreferencesError: there are fewer than two distinct prompts.
    """
    prompts = list(dict.fromkeys(pair.prompt_key for pair in pairs))
    if len(prompts) < 2:
        raise PreferencesError(
            f"{len(pairs)} pair(s) with {len(prompts)} distinct prompt(s): at least two prompts are needed, "
            "one to train on and one held out to measure with. A few hundred make a difference that can be seen."
        )
    kept = min(max(1, round(len(prompts) * held_out)), HELD_OUT_LIMIT, len(prompts) - 1)
    aside = set(Random(seed).sample(prompts, kept))
    train = [pair for pair in pairs if pair.prompt_key not in aside]
    return train, [pair for pair in pairs if pair.prompt_key in aside]
