"""Whether a reply reads more like the chosen or the rejected ones, by its words alone: naive Bayes on word presence.

It learns from a run's training pairs, and is only as reliable as its accuracy on held-out pairs. It recognises style,
not truth. Knows nothing of models.
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
"""The most pairs to learn from, evenly spaced if there are more. Beyond this, more pairs change no verdict."""
_WORD = re.compile(rf"[^\W{NO_SPACES}]+|\S")
"""Punctuation marks count as words: a `!` is style, too."""


@dataclass(frozen=True)
class StyleClassifier:
    """The log-odds of each feature, a word or two adjacent words: how much more often chosen replies contain it."""

    odds: Mapping[str, float]

    @classmethod
    def learn(cls, pairs: Sequence[PreferencePair]) -> StyleClassifier:
        """Count the chosen and rejected replies with each feature: log-odds are log (chosen + 1) / (rejected + 1)."""
        chosen: Counter[str] = Counter()
        rejected: Counter[str] = Counter()
        for pair in pairs[:: max(1, math.ceil(len(pairs) / MOST))]:
            chosen.update(features(text_of(pair.chosen)))
            rejected.update(features(text_of(pair.rejected)))
        known = chosen.keys() | rejected.keys()
        return cls({feature: math.log((chosen[feature] + 1) / (rejected[feature] + 1)) for feature in known})

    def score(self, text: str) -> float:
        """The mean log-odds of the known features, so that length has no effect; 0 if there are none."""
        known = [self.odds[feature] for feature in features(text) if feature in self.odds]
        return math.fsum(known) / len(known) if known else 0.0  # fsum, since a set has no fixed order

    def accuracy(self, pairs: Sequence[PreferencePair]) -> float:
        """The share of *pairs* whose chosen reply scores above the rejected one; ties count half."""
        margins = [self.score(text_of(pair.chosen)) - self.score(text_of(pair.rejected)) for pair in pairs]
        return fmean((margin > 0) + (margin == 0) / 2 for margin in margins)

    def is_like_chosen(self, reply: str, pairs: Sequence[PreferencePair]) -> bool:
        """Whether *reply* scores above the mean of *pairs*, the chosen and rejected replies to the same prompt.

        A prompt's topic shifts the scores of all its replies, so each prompt has its own mean.
        """
        sides = [self.score(text_of(side)) for pair in pairs for side in (pair.chosen, pair.rejected)]
        return self.score(reply) > fmean(sides)


def features(text: str) -> set[str]:
    """The words of *text* in lower case, and its pairs of adjacent words."""
    words = _WORD.findall(text.casefold())
    return {*words, *(f"{first} {second}" for first, second in pairwise(words))}
