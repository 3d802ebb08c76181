"""Counts the traits of the pairs; `doctor` judges the counts."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from rapidfuzz.distance import Indel

from ..pairs import PreferencePair
from . import signs
from .findings import Tally
from .near import NearDuplicateIndex
from .reading import BOTH_WAYS, Reading, bigrams, exact_key, numbers

NEAR_IDENTICAL = 0.95
"""Character similarity of nearly identical replies: two or three words in fifty differ."""
COMPARED_CHARS = 20_000
"""Longer replies are not compared in this way, because the time grows with the square of their length."""

_IN_TEXT: Mapping[str, Callable[[str], bool]] = {
    "secrets": signs.holds_secret,
    "emails": signs.holds_email,
    "chat-markup": signs.holds_markup,
    "wrong-encoding": signs.holds_mojibake,
    "control-characters": signs.holds_control,
}


@dataclass
class Survey:
    """The counts.

    `tallies` counts pairs by trait. If only one reply shows a trait, the name ends in `-chosen` or `-rejected`;
    `sensitive-` counts those that decline over a sensitive subject. `near_prompts` counts distinct prompts that nearly
    match an earlier one, `languages` counts the chosen replies by language, and `ratios` holds the length of each
    chosen reply divided by that of the rejected one, in characters.
    """

    pairs: int = 0
    prompts: int = 0
    systems: int = 0
    tallies: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    near_prompts: Tally = field(default_factory=Tally)
    languages: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    ratios: array[float] = field(default_factory=lambda: array("f"))


@dataclass
class _Keys:
    """The keys by which pairs are compared."""

    pairs: set[int] = field(default_factory=set)
    prompts: set[int] = field(default_factory=set)
    systems: set[int] = field(default_factory=set)
    rows: array[int] = field(default_factory=lambda: array("q"))
    choices: array[int] = field(default_factory=lambda: array("q"))
    directions: dict[int, int] = field(default_factory=dict)
    twin_pairs: NearDuplicateIndex = field(default_factory=NearDuplicateIndex)
    twin_prompts: NearDuplicateIndex = field(default_factory=NearDuplicateIndex)


def survey(pairs: Iterable[PreferencePair]) -> Survey:
    """Count the traits of *pairs*, reading them a second time only if some may be nearly the same."""
    found, keys = Survey(), _Keys()
    for number, pair in enumerate(pairs):
        reading = Reading.of(pair)
        for kind in chain(_signs(reading), _sides(reading)):
            found.tallies[kind].add(pair.row)
        if spoken := signs.language(reading.words[1]):
            found.languages[spoken].add(pair.row)
        found.ratios.append(len(reading.texts[1]) / max(1, len(reading.texts[2])))
        if not _enter(keys, number, reading):
            found.tallies["duplicates"].add(pair.row)
    found.pairs, found.prompts, found.systems = len(found.ratios), len(keys.prompts), len(keys.systems)
    _find_contradictions(keys, found)
    _find_twins(pairs, keys, found)
    return found


def _signs(reading: Reading) -> Iterator[str]:
    """Name the traits that the pair shows by itself."""
    _, one, other = reading.normalised
    if one == other:
        yield "identical-replies"
    elif max(len(one), len(other)) <= COMPARED_CHARS and _nearly_identical(one, other):
        yield "near-identical-replies"
    yield from (kind for kind, shows in _IN_TEXT.items() if any(map(shows, reading.texts)))
    yield "system" if any(message["role"] == "system" for message in reading.pair.prompt) else "no-system"


def _nearly_identical(one: str, other: str) -> bool:
    alike = Indel.normalized_similarity(one, other, score_cutoff=NEAR_IDENTICAL) > 0
    return alike and numbers(one) == numbers(other)


def _sides(reading: Reading) -> Iterator[str]:
    """Name the traits that only one of the two replies shows."""
    asked, *replies = reading.words
    declines, rude = map(signs.is_refusal, replies), map(signs.rude, replies)
    noise = map(signs.noise, reading.texts[1:], replies)
    longer = len(reading.texts[1]) - len(reading.texts[2])
    sides = {"declines": declines, "rude": rude, "noise": noise, "longer": (longer > 0, longer < 0)}
    for kind, (chosen, rejected) in sides.items():
        if chosen != rejected:
            side = "chosen" if chosen else "rejected"
            yield f"{kind}-{side}"
            if kind == "declines" and signs.is_sensitive([*asked, *replies[0]] if chosen else asked):
                yield f"sensitive-{side}"


def _enter(keys: _Keys, number: int, reading: Reading) -> bool:
    """Record the pair, and return whether it is new."""
    pair = reading.pair
    keys.systems.update(hash(message["content"]) for message in pair.prompt if message["role"] == "system")
    choice, direction = reading.choice
    keys.rows.append(pair.row)
    keys.choices.append(choice)
    keys.directions[choice] = keys.directions.get(choice, 0) | direction
    if (prompt := hash(pair.prompt_key)) not in keys.prompts:
        keys.prompts.add(prompt)
        keys.twin_prompts.add(number, bigrams(reading.words[0]))
    if (exact := exact_key(pair)) in keys.pairs:
        return False
    keys.pairs.add(exact)
    keys.twin_pairs.add(number, reading.bigrams)
    return True


def _find_contradictions(keys: _Keys, found: Survey) -> None:
    for row, choice in zip(keys.rows, keys.choices, strict=True):
        if keys.directions[choice] == BOTH_WAYS:
            found.tallies["contradictions"].add(row)


def _find_twins(pairs: Iterable[PreferencePair], keys: _Keys, found: Survey) -> None:
    maybe = [twins.close() for twins in (keys.twin_pairs, keys.twin_prompts)]
    for number, pair in enumerate(pairs if any(maybe) else ()):
        if number in keys.twin_pairs or number in keys.twin_prompts:
            said = Reading.of(pair).normalised
            if keys.twin_pairs.has_near_duplicate(number, said):
                found.tallies["near-duplicates"].add(pair.row)
            if keys.twin_prompts.has_near_duplicate(number, said[:1]):
                found.near_prompts.add(pair.row)
