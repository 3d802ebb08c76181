"""Finds near-duplicate texts in large collections, by MinHash and locality-sensitive hashing.

Two passes: `add` the bigrams of every text and `close`, then check each text, in the same order, with
`has_near_duplicate`. Only texts that share a band of their signatures are compared, each with the few earlier ones that
share the most bands. So the work does not become quadratic, even with very many texts or one template behind all of
them.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection

from rensa import RMinHash  # type: ignore[import-untyped]  # it ships no types

from .reading import nearly_same

BANDS, BAND_ROWS = 16, 5
"""Of text pairs that share 80% of their runs, 998 in 1,000 share a band; of those that share 30%, 4 in 100."""
COMPARED = 3
"""Maximum number of earlier texts that each text is compared with."""
BATCH = 500
SEED = 1


class NearDuplicateIndex:
    """Texts by number. A text has one or more parts, and each part must nearly match that of its twin."""

    def __init__(self) -> None:
        self._waiting: list[Collection[str]] = []
        self._numbers = array("Q")
        self._bands = [array("Q") for _ in range(BANDS)]
        self._shared: dict[int, array[int]] = {}
        self._first: dict[int, int] = {}
        self._kept: dict[int, tuple[str, ...]] = {}

    def add(self, number: int, runs: Collection[str]) -> None:
        """Add the runs of text *number*."""
        self._numbers.append(number)
        self._waiting.append(runs)
        if len(self._waiting) == BATCH:
            self._sign()

    def _sign(self) -> None:
        for digest in RMinHash.digests_from_token_sets(self._waiting, BANDS * BAND_ROWS, SEED):
            for band, keys in enumerate(self._bands):
                part = digest[band * BAND_ROWS : (band + 1) * BAND_ROWS]
                keys.append(hash((band, *part)) & 0xFFFF_FFFF_FFFF_FFFF)
        self._waiting = []

    def close(self) -> bool:
        """Discard all texts that share no band with another, and return whether any are left."""
        self._sign()
        for keys in self._bands:
            often = {key for key, count in Counter(keys).items() if count > 1}
            for number, key in zip(self._numbers, keys, strict=True):
                if key in often:
                    self._shared.setdefault(number, array("Q")).append(key)
        self._bands = []
        return bool(self._shared)

    def __contains__(self, number: int) -> bool:
        """Whether text *number* may have a twin."""
        return number in self._shared

    def has_near_duplicate(self, number: int, text: tuple[str, ...]) -> bool:
        """Whether *text*, which has this *number*, nearly matches an earlier one; its words are joined by spaces."""
        if number not in self:
            return False
        keys = self._shared[number]
        earlier = Counter(self._first[key] for key in keys if key in self._first)
        for other, _ in earlier.most_common(COMPARED):
            if all(map(nearly_same, text, self._kept[other])):
                return True
        self._kept[number] = text
        for key in keys:
            self._first.setdefault(key, number)
        return False
