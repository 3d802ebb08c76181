"""Splits pairs into training and held-out pairs, with no prompt in both."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from random import Random

from ..errors import PreferencesError
from .pairs import PreferencePair

HELD_OUT_LIMIT = 500
"""Maximum number of held-out prompts; more would only make the evaluation slower."""

TRAIN, HELD_OUT = "train", "held_out"


def split_pairs(pairs: Iterable[PreferencePair], held_out: float, *, seed: int) -> list[str]:
    """Assign each of *pairs* to `train` or `held_out`, in order.

    *held_out* is the share of distinct prompts to hold out, at least one and at most `HELD_OUT_LIMIT`, drawn with
    *seed*. Prompts that differ only in case, spaces and punctuation are the same.

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
    held_out_count = min(max(1, round(len(prompts) * held_out)), HELD_OUT_LIMIT, len(prompts) - 1)
    aside = set(Random(seed).sample(prompts, held_out_count))
    return [HELD_OUT if key in aside else TRAIN for key in keys]


def prompt_digest(pair: PreferencePair) -> bytes:
    """A digest that is equal for prompts that `split_pairs` treats as one; short, because there may be many."""
    words = re.sub(r"[\W_]+", " ", pair.prompt_key.casefold()).strip() or pair.prompt_key
    return blake2b(words.encode(), digest_size=12).digest()
