"""What the doctor finds in a preference file, the lengths of its replies, and its repair."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ...preferences import PreferencePair
from ...preferences.doctor import examine
from ...preferences.doctor.findings import Finding
from ...preferences.repair import repair
from .files import Key, Source, find, key_of, read, read_by, save_copy

SAMPLES = 3
"""Rows shown for each finding."""


@dataclass(frozen=True)
class Examined:
    """What the doctor found, the first pairs affected, by row, and the lengths of the replies, in words."""

    findings: Sequence[Finding]
    samples: Mapping[int, PreferencePair]
    chosen: Sequence[int]
    rejected: Sequence[int]


def examined(source: Source) -> Examined:
    """Have the doctor examine the pairs of *source*.

    Raises:
        PreferencesError: it cannot be read.
    """
    return _examined(*key_of(source))


@lru_cache(4)
def _examined(*key: *Key) -> Examined:
    preferences = read_by(*key)
    findings = examine(preferences)
    wanted = {row for finding in findings for row in finding.rows[:SAMPLES]}
    samples: dict[int, PreferencePair] = {}
    lengths = []
    for pair in preferences.pairs:
        lengths.append((_words(pair.chosen), _words(pair.rejected)))
        if pair.row in wanted:
            samples.setdefault(pair.row, pair)
    return Examined(findings, samples, *_turned(lengths))


def _turned(lengths: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]]:
    chosen, rejected = zip(*lengths, strict=True)
    return list(chosen), list(rejected)


def _words(messages: Sequence[Mapping[str, object]]) -> int:
    return sum(len(str(message["content"]).split()) for message in messages)


def repaired(shelf: Path, file: str) -> str:
    """Save the repaired pairs of *file* as a new file with a note of the changes; return its id.

    Raises:
        PreferencesError: it cannot be read, or no pair is left.
        DiskFullError: there is no room.
    """
    source = find(shelf, file)
    stem = Path(source.name).name.split(":")[0].split(".")[0] or "pairs"
    with tempfile.TemporaryDirectory() as folder:
        done = repair(read(source), Path(folder) / "repaired.csv")
        changes = "; ".join(f"{what}: {count:,}" for what, count in done.counts.items())
        note = f"Repaired from {source.name}. {f'Changed: {changes}.' if changes else 'Nothing had to be changed.'}"
        return save_copy(shelf, done.out, f"{stem}-repaired.csv", note=note)
