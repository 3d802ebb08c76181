"""Whether a reply reads more like the chosen or the rejected ones, by its words alone: naive Bayes over their presence.

Learned from the pairs that a run trains on, and only to be believed as far as it orders held-out pairs right. It sees
manner, not truth. Knows nothing of models.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from ..preferences import PreferencePair, text_of
from ..preferences.doctor.reading import NO_SPACES

MOST = 2_000
"""Pairs to learn from; of more, as many, evenly spaced. What a pair adds to so many changes no verdict."""
_WORD = re.compile(rf"[^\W{NO_SPACES}]+|\S")
"""Punctuation marks are words: how many sentences end in `!` is manner, too."""


@dataclass(frozen=True)
class Likeness:
    """The log-odds of each feature of a text, a word or two neighbours: how much oftener chosen replies have it."""

    odds: Mapping[str, float]

    @classmethod
    def learn(cls, pairs: Sequence[PreferencePair]) -> Likeness:
        """Count in how many chosen and rejected replies each feature is: log (chosen + 1) / (rejected + 1)."""
        chosen: Counter[str] = Counter()
        rejected: Counter[str] = Counter()
        for pair in pairs[:: max(1, math.ceil(len(pairs) / MOST))]:
            chosen.update(features(text_of(pair.chosen)))
            rejected.update(features(text_of(pair.rejected)))
        known = chosen.keys() | rejected.keys()
        return cls({feature: math.log((chosen[feature] + 1) / (rejected[feature] + 1)) for feature in known})

    def score(self, text: str) -> float:
        """The mean log-odds of the features that are known, so that length does not decide; 0 where none is."""
        known = [self.odds[feature] for feature in features(text) if feature in self.odds]
        return math.fsum(known) / len(known) if known else 0.0  # fsum: a set has no order of its own

    def right(self, pairs: Sequence[PreferencePair]) -> float:
        """The share of *pairs* whose chosen reply scores above the rejected one; a tie is half."""
        margins = [self.score(text_of(pair.chosen)) - self.score(text_of(pair.rejected)) for pair in pairs]
        return fmean((margin > 0) + (margin == 0) / 2 for margin in margins)

    def is_like_chosen(self, reply: str, pairs: Sequence[PreferencePair]) -> bool:
        """Whether *reply* scores above the middle of the chosen and rejected replies to the same prompt, of *pairs*.

        What a prompt is about moves the scores of all its replies, so each prompt has a middle of its own.
        """
        sides = [self.score(text_of(side)) for pair in pairs for side in (pair.chosen, pair.rejected)]
        return self.score(reply) > fmean(sides)


def features(text: str) -> set[str]:
    """The words of *text* in lower case, and each two that are neighbours."""
    words = _WORD.findall(text.casefold())
    return {*words, *(f"{first} {second}" for first, second in pairwise(words))}
