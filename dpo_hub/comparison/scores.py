"""Scores a file of replies with the lens, and ranks replies to the same prompt."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from ..errors import PreferencesError
from ..preferences.pairs import SHOWN_REASONS, format_rows, pluralise
from ..preferences.read import prefixing_errors
from ..preferences.replies import Question, ReplyFile, require_output_path, write_rows
from ..preferences.table import Row, Unreadable
from .lens import Lens

DIGITS = 6
"""Decimals of a reward that are written; further ones are rounding error."""


@dataclass(frozen=True)
class Scores:
    """The reward of each reply of a file, row by row, and its rank, 1 for the best to its prompt; None if not scored.

    `ranks` is empty if no prompt has several replies, and `left_out` maps each reason to the rows with a reply that
    could not be scored for that reason.
    """

    file: ReplyFile
    names: Sequence[str]
    """All columns of the rows."""
    rewards: Sequence[float | None]
    ranks: Sequence[int | None]
    left_out: Mapping[str, Sequence[int]]
    cut: int
    """Replies that `max_length` truncated."""

    @property
    def count(self) -> int:
        """The number of replies with a reward."""
        return sum(reward is not None for reward in self.rewards)

    @property
    def added(self) -> list[str]:
        """The columns that `write` adds: `reward` and `rank`, prefixed with the reply's name if there are several.

        If the file already has such a column, all get the next number as a suffix: `reward_2`.
        """
        replies = self.file.replies
        kinds = ("reward", "rank") if self.ranks else ("reward",)
        names = [kind if len(replies) == 1 else f"{reply}_{kind}" for kind in kinds for reply in replies]
        tries = ([name + end for name in names] for end in chain([""], map("_{}".format, count(2))))
        return next(added for added in tries if not set(added) & set(self.names))

    def write(self, path: Path) -> None:
        """Write the file with these columns to *path*.

        Raises:
            PreferencesError: as `require_output_path` and `write_rows`.
        """
        require_output_path(path, self.file.source)
        write_rows(self._rows(), list(dict.fromkeys([*self.names, *self.added])), path)

    def _rows(self) -> Iterator[Row]:
        added, width = self.added, len(self.file.replies)
        rewards = [None if reward is None else round(reward, DIGITS) for reward in self.rewards]
        for place, (_, row) in enumerate(self.file.rows()):
            own = slice(place * width, place * width + width)
            figures = zip(added, [*rewards[own], *self.ranks[own]], strict=True)
            yield (row if isinstance(row, dict) else {}) | dict(figures)


def score(lens: Lens, file: ReplyFile) -> Scores:
    """Score every reply of *file*; only the rewards are kept in memory.

    Raises:
        PreferencesError: no reply can be scored.
        ModelError: the device's memory is full.
    """
    names: dict[str, None] = {}
    asked: deque[tuple[int, bytes]] = deque()

    def questions() -> Iterator[Question | Unreadable]:
        for number, row in file.rows():
            names.update(dict.fromkeys(row if isinstance(row, dict) else ()))
            for question in file.questions(row):
                asked.append((number, question.key if isinstance(question, Question) else b""))
                yield question

    rewards: list[float | None] = []
    places: dict[bytes, list[int]] = defaultdict(list)
    left_out: dict[str, list[int]] = defaultdict(list)
    cut = 0
    with prefixing_errors(file.source):
        for place, found in enumerate(lens.score(questions())):
            row, prompt = asked.popleft()
            if isinstance(found, Unreadable):
                rewards.append(None)
                if row not in left_out[found][-1:]:  # list each row once
                    left_out[found].append(row)
            else:
                rewards.append(found[0].reward)
                places[prompt].append(place)
                cut += found[0].cut
        if not places:
            reasons = "; ".join(f"{why} ({format_rows(rows)})" for why, rows in list(left_out.items())[:SHOWN_REASONS])
            raise PreferencesError(f"None of {pluralise(len(rewards), 'row')} has a reply that can be read: {reasons}.")
    return Scores(file, list(names), rewards, _ranks(rewards, list(places.values())), dict(left_out), cut)


def _ranks(rewards: Sequence[float | None], by_prompt: Sequence[Sequence[int]]) -> list[int | None]:
    """The rank of each reply among those to its prompt; equal rewards share a rank."""
    if max(map(len, by_prompt)) == 1:
        return []
    ranks: list[int | None] = [None] * len(rewards)
    for places in by_prompt:
        first: dict[float | None, int] = {}
        for rank, place in enumerate(sorted(places, key=lambda at: -(rewards[at] or 0.0)), 1):
            ranks[place] = first.setdefault(rewards[place], rank)
    return ranks
