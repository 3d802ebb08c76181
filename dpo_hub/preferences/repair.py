"""Writes a cleaned file and a list of the changes. Nothing is guessed: uncertain cases are left to people."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import PreferencesError, explaining_disk_full
from .doctor.reading import BOTH_WAYS, choice_of, exact_key, text_with_calls
from .doctor.signs import CONTROL, EMAIL, SECRET
from .export import atomic_write, write_csv, write_preferences
from .pairfile import PART_ROLES, Draft, PairFile, write_pairs
from .pairs import Messages, PreferencePair, Preferences, pluralise

_CLEANERS: Mapping[str, Callable[[str], str]] = {
    "secret masked": lambda text: SECRET.sub("[secret]", text),
    "e-mail address masked": lambda text: EMAIL.sub("[e-mail]", text),
    "control characters removed": lambda text: CONTROL.sub("", text),
    "white space trimmed": str.strip,
}
"""Applied to each text, in this order."""

REPAIRED_KINDS = ("identical-replies", "contradictions", "secrets", "duplicates", "emails", "control-characters")
"""The kinds of doctor findings that a repair fixes."""


class Change(NamedTuple):
    """A change to a row of the source, and where or why."""

    row: int
    what: str
    detail: str


@dataclass(frozen=True)
class Repair:
    """The cleaned file `out`, its number of pairs, the file with the list of `changes`, and the counts by kind."""

    out: Path
    changes: Path
    pairs: int
    counts: Mapping[str, int]

    def sentence(self) -> str:
        """Describe in words what was written and changed."""
        wrote = f"Wrote {pluralise(self.pairs, 'pair')} to {self.out}"
        if not self.counts:
            return f"{wrote}. Nothing had to be changed."
        told = "; ".join(f"{what}: {count:,}" for what, count in self.counts.items())
        return f"{wrote}. Changes, row by row in {self.changes}: {told}."


def repair(preferences: Preferences, out: Path) -> Repair:
    """Write the cleaned pairs to *out*, and the changes to `<out's stem>-changes.csv` in the same folder.

    Secrets and e-mail addresses are masked; control characters and outer white space are removed. Pairs are dropped if
    they repeat an earlier one, if they are labelled both ways, if a part is empty after cleaning, or if their replies
    differ only in capitals and outer white space.

    Raises:
        PreferencesError: one of the files already exists, `write_preferences` cannot write the pairs to *out*, or no
            pair is left.
        DiskFullError: the disk is full.
    """
    listed = out.with_name(f"{out.stem}-changes.csv")
    for path in (out, listed):
        if path.exists():
            raise PreferencesError(f"{path} already exists, and nothing is overwritten. Choose another name.")
    changes = [Change(row, f"left out: {why}", "") for why, rows in preferences.left_out.items() for row in rows]
    with tempfile.TemporaryFile() as file, atomic_write(listed) as list_file:
        with explaining_disk_full(tempfile.gettempdir()):
            write_pairs(map(Draft.of, _kept(preferences.pairs, changes)), file)
        pairs = PairFile(file)
        if not pairs:
            raise PreferencesError(f"No pair is left of {preferences.source} once it is cleaned. Look at its findings.")
        changes.sort(key=lambda change: change.row)
        rows = ((str(row), what, detail) for row, what, detail in changes)
        write_csv(chain([Change._fields], rows), list_file)
        write_preferences(pairs, out)
        return Repair(out, listed, len(pairs), Counter(change.what for change in changes))


def _kept(pairs: Iterable[PreferencePair], changes: list[Change]) -> Iterator[PreferencePair]:
    """Clean *pairs* and yield those worth keeping; add all changes to *changes*."""
    contradicted = _contradicted(pairs)
    kept: dict[int, int] = {}
    for pair in pairs:
        cleaned, done = _cleaned(pair)
        changes += (Change(pair.row, what, part) for what, part in done)
        texts, key = _compared_texts(cleaned), exact_key(cleaned)
        if not all(map(_says_something, (cleaned.prompt, cleaned.chosen, cleaned.rejected))):
            changes.append(Change(pair.row, "dropped: nothing left", "a part is empty once it is cleaned"))
        elif texts[1] == texts[2]:
            changes.append(Change(pair.row, "dropped: identical replies", "but for capitals and outer white space"))
        elif choice_of(cleaned, texts)[0] in contradicted:
            changes.append(Change(pair.row, "dropped: labelled both ways", "which reply is better is not clear"))
        elif key in kept:
            changes.append(Change(pair.row, "dropped: a repeat", f"the same as row {kept[key]}"))
        else:
            kept[key] = pair.row
            yield cleaned


def _contradicted(pairs: Iterable[PreferencePair]) -> set[int]:
    directions: defaultdict[int, int] = defaultdict(int)
    for pair in pairs:
        cleaned, _ = _cleaned(pair)
        choice, direction = choice_of(cleaned, _compared_texts(cleaned))
        directions[choice] |= direction
    return {choice for choice, seen in directions.items() if seen == BOTH_WAYS}


def _compared_texts(pair: PreferencePair) -> list[str]:
    """Prompt, chosen and rejected, ignoring capitals; punctuation and indentation may be what is preferred."""
    return [text_with_calls(getattr(pair, part)).casefold().strip() for part in PART_ROLES]


def _cleaned(pair: PreferencePair) -> tuple[PreferencePair, set[tuple[str, str]]]:
    """Return the cleaned pair, and what was changed in which part."""
    done: set[tuple[str, str]] = set()
    parts: dict[str, Any] = {}
    for part in PART_ROLES:
        parts[part], what = _clean(getattr(pair, part))
        done |= {(each, part) for each in what}
    return (replace(pair, **parts) if done else pair), done


def _clean(value: Any) -> tuple[Any, set[str]]:
    """Return *value* with all its text cleaned, and what was changed."""
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, Mapping):
        pairs = {key: _clean(item) for key, item in value.items()}
        return {key: item for key, (item, _) in pairs.items()}, set().union(*(done for _, done in pairs.values()))
    if isinstance(value, (list, tuple)):
        items = [_clean(item) for item in value]
        return [item for item, _ in items], set().union(*(done for _, done in items))
    return value, set()


def _clean_text(text: str) -> tuple[str, set[str]]:
    done = set()
    for what, clean in _CLEANERS.items():
        cleaned = clean(text)
        if cleaned != text:
            done.add(what)
        text = cleaned
    return text, done


def _says_something(messages: Messages) -> bool:
    return any(message["content"] or len(message) > 2 for message in messages)
