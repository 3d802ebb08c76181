"""How a preference file was read, its pairs with differences marked, and what the doctor found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from html import escape
from statistics import median

from ...preferences import PreferencePair, Preferences, text_of
from ...preferences.doctor.findings import Finding
from ...preferences.pairs import pluralise
from . import finding as card
from . import findings as cards
from . import hint

PAGE_SIZE = 5
"""Pairs on a page."""
LONGEST = 1_500
"""The most characters shown of a text."""
SHORT = 160
"""The most characters shown of a text in a sample row."""
NO_FILE = hint("Choose a file, and see here what is in it.")
HEALTHY = hint("The doctor found nothing to mend.")
PARTS = ("prompt", "chosen", "rejected")
_WORD = re.compile(r"\S+")


def reading(preferences: Preferences, note: str = "", file: str = "") -> str:
    """How a file was read and, if it was made here, how it came about; *file* is its id for the download."""
    made = f'<p class="made" role="status">{escape(note)}</p>' if note else ""
    said = f'<p class="reading">{escape(preferences.sentence())}</p>'
    notes = "".join(f"<li>{escape(text)}</li>" for text in preferences.notes)
    return f'{made}{said}<ul class="notes">{notes}</ul>{download(file, bool(note)) if file else ""}'


def error(text: str) -> str:
    """Why a file cannot be read."""
    return f'<p class="error" role="alert">{escape(text)}</p>'


def download(file: str, made: bool) -> str:
    """The link to the visitor's own file; the URL is relative, because the page may be served under a path."""
    title = "Download the cleaned file" if made else "Download this file"
    return f'<p class="download"><a href="download/file/{escape(file)}" download>{title}</a></p>'


def pairs(shown: Iterable[PreferencePair]) -> str:
    """A table of pairs, with words marked that only one reply has."""
    head = "".join(f'<th scope="col" class="{part}">{part}</th>' for part in PARTS)
    body = "".join(map(_pair, shown))
    return (
        '<table class="texts pairs"><caption>Underlined words are in one of the two replies only.</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _pair(pair: PreferencePair) -> str:
    prompt, chosen, rejected = (_cut(text_of(getattr(pair, part)), LONGEST) for part in PARTS)
    cells = zip(PARTS, (escape(prompt), *marked(chosen, rejected)), strict=True)
    row = "".join(f'<td class="{part}" data-label="{part}">{text}</td>' for part, text in cells)
    return f"<tr>{row}</tr>"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length].rstrip()} …"


def marked(chosen: str, rejected: str) -> tuple[str, str]:
    """Both replies as HTML, with words marked that only one of them has."""
    one, other = ([word.span() for word in _WORD.finditer(text)] for text in (chosen, rejected))
    words, others = [chosen[begin:end] for begin, end in one], [rejected[begin:end] for begin, end in other]
    steps = SequenceMatcher(None, words, others, autojunk=False).get_opcodes()
    differ = [step for step in steps if step[0] != "equal"]
    return (
        _underlined(chosen, [(one[begin][0], one[end - 1][1]) for _, begin, end, _, _ in differ if begin < end]),
        _underlined(rejected, [(other[begin][0], other[end - 1][1]) for _, _, _, begin, end in differ if begin < end]),
    )


def _underlined(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """*text* as HTML, with the parts at *spans* marked."""
    parts, done = [], 0
    for begin, end in spans:
        parts += [escape(text[done:begin]), f"<mark>{escape(text[begin:end])}</mark>"]
        done = end
    return "".join([*parts, escape(text[done:])])


def place(page: int, total: int) -> str:
    """Which pairs the page shows."""
    first = page * PAGE_SIZE + 1
    return f'<p class="place" role="status">Pairs {first:,}–{min(first + PAGE_SIZE - 1, total):,} of {total:,}</p>'


def findings(found: Sequence[Finding], samples: dict[int, PreferencePair], rows: int) -> str:
    """A card for each of the doctor's findings, with the first *rows* rows affected."""
    shown = (card(one.severity, one.message, one.advice, more=_rows(one, samples, rows)) for one in found)
    return cards(shown, "What the doctor found") or HEALTHY


def _rows(finding: Finding, samples: dict[int, PreferencePair], rows: int) -> str:
    """The first *rows* rows affected, collapsed."""
    if not finding.rows:
        return ""
    few = min(rows, len(finding.rows))
    title = f"Look at {few} of {finding.count:,}" if finding.count > few else f"Look at {pluralise(few, 'row')}"
    shown = "".join(_sample(row, samples.get(row)) for row in finding.rows[:few])
    return f"<details><summary>{title}</summary><dl>{shown}</dl></details>"


def _sample(row: int, pair: PreferencePair | None) -> str:
    if pair is None:
        return f"<dt>Row {row:,}</dt><dd>It gave no pair.</dd>"
    texts = "".join(f"<dd><b>{part}</b> {escape(_cut(text_of(getattr(pair, part)), SHORT))}</dd>" for part in PARTS)
    return f"<dt>Row {row:,}</dt>{texts}"


BINS = 16
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 480, 220, 44, 12, 48


def lengths(chosen: Sequence[int], rejected: Sequence[int]) -> str:
    """The lengths of the replies as a bar chart: two bars for each range of lengths, in words."""
    width = _bin_width([*chosen, *rejected])
    sides = [_tally(side, width) for side in (chosen, rejected)]
    medians = ", ".join(
        f"{name} {pluralise(round(median(side)), 'word')}"
        for name, side in (("chosen", chosen), ("rejected", rejected))
    )
    count = max(map(len, sides))
    highest = max(map(max, sides))
    bars = "".join(_bars(name, side, count, highest) for name, side in zip(PARTS[1:], sides, strict=True))
    return (
        '<figure class="lengths"><figcaption>How long the replies are <span class="key chosen">chosen</span> '
        '<span class="key rejected">rejected</span></figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Lengths of the replies. Half are at most as '
        f'long as this: {medians}."><title>Lengths of the replies</title>{bars}{_axes(count, width, highest)}</svg>'
        f"<p>Median: {medians}.</p></figure>"
    )


def _bin_width(words: Sequence[int]) -> int:
    """Words in each bar's range, so that all but the longest 2% of replies fall into a bar of their own range."""
    usual = sorted(words)[int(0.98 * (len(words) - 1))]
    return max(1, -(-(usual + 1) // BINS))


def _tally(words: Sequence[int], width: int) -> list[int]:
    """The number of replies in each bar; the last bar includes all longer ones."""
    counts = [0] * BINS
    for number in words:
        counts[min(number // width, BINS - 1)] += 1
    return counts


def _bars(name: str, counts: Sequence[int], slots: int, highest: int) -> str:
    slot = (_WIDTH - _LEFT) / slots
    across = slot * 0.42
    shift = 0 if name == "chosen" else across
    tall = _HEIGHT - _TOP - _BOTTOM
    return "".join(
        f'<rect class="{name}" x="{_LEFT + place * slot + slot * 0.08 + shift:.1f}" width="{across:.1f}" '
        f'y="{_TOP + tall * (1 - count / highest):.1f}" height="{tall * count / highest:.1f}"/>'
        for place, count in enumerate(counts)
        if count
    )


def _axes(slots: int, width: int, highest: int) -> str:
    base = _HEIGHT - _BOTTOM
    slot = (_WIDTH - _LEFT) / slots
    marks = "".join(
        f'<text x="{_LEFT + place * slot:.0f}" y="{base + 18}" text-anchor="middle">{place * width:,}</text>'
        for place in range(0, slots, 4)
    )
    last = f'<text x="{_WIDTH}" y="{base + 18}" text-anchor="end">{(slots - 1) * width:,}+</text>'
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{base}" y2="{base}"/>{marks}{last}'
        f'<text x="{(_WIDTH + _LEFT) // 2}" y="{_HEIGHT - 8}" text-anchor="middle">words in a reply</text>'
        f'<text x="{_LEFT - 6}" y="{_TOP + 10}" text-anchor="end">{highest:,}</text>'
        f'<text x="{_LEFT - 6}" y="{base}" text-anchor="end">0</text>'
        f'<text x="12" y="{base // 2 + _TOP}" text-anchor="middle" '
        f'transform="rotate(-90 12 {base // 2 + _TOP})">pairs</text>'
    )
