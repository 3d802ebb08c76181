"""Train and held-out pairs, with no prompt on both sides."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from random import Random

from ..errors import PreferencesError
from .pairs import PreferencePair

HELD_OUT_LIMIT = 500
"""More held-out prompts than this would only make the evaluation slower."""

TRAIN, HELD_OUT = "train", "held_out"


def split_pairs(pairs: Iterable[PreferencePair], held_out: float, *, seed: int) -> list[str]:
    """Say of each of *pairs*, in order, whether it is for `train` or `held_out`.

    *held_out* is the share of distinct prompts, at least one and at most `HELD_OUT_LIMIT`, drawn with *seed*. Prompts
    that differ in case, spaces and punctuation only are the same.

    Raises:
        PreferencesError: there are fewer than two distinct prompts.
    """
    keys = [prompt_digest(pair) for pair in pairs]
    prompts = list(dict.fromkeys(keys))
    if len(prompts) < 2:
        raise PreferencesError(
            f"{len(keys)} pair(s) with {len(prompts)} distinct prompt(s): at least two prompts are needed, "
            "one to train on and one held out to measure with. A few hundred make a difference that can be seen."
        )
    kept = min(max(1, round(len(prompts) * held_out)), HELD_OUT_LIMIT, len(prompts) - 1)
    aside = set(Random(seed).sample(prompts, kept))
    return [HELD_OUT if key in aside else TRAIN for key in keys]


def prompt_digest(pair: PreferencePair) -> bytes:
    """The same for prompts that `split_pairs` takes as one; short, because there may be many."""
    words = re.sub(r"[\W_]+", " ", pair.prompt_key.casefold()).strip() or pair.prompt_key
    return blake2b(words.encode(), digest_size=12).digest()
