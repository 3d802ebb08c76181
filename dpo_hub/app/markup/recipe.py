"""The preview of what a run needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from ...runs.progress import duration
from . import finding as card
from . import findings as cards
from . import hint

SEVERE = {"high": "It would fail", "medium": "Worth a look", "low": "Good to know"}


def preflight(ahead: Mapping[str, Any]) -> str:
    """The figures of the preview, and the problems it found."""
    figures = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in _figures(ahead))
    against = (
        card(one["severity"], one["message"], one["advice"], word=SEVERE[one["severity"]]) for one in ahead["findings"]
    )
    verdict = cards(against, "What may go wrong") or hint("No problems found.")
    return f'<div class="run" role="status"><dl>{figures}</dl>{verdict}</div>'


def _figures(ahead: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    memory, batches = ahead["outlook"]["memory"], ahead["outlook"]["batches"]
    if ahead["run_seconds"] is not None:
        yield "Time here", f"about {duration(ahead['run_seconds'])}"
    yield "Memory", f"{memory['peak'] / 1e9:.1f} of {(memory['free'] + memory['held']) / 1e9:.0f} GB"
    yield "Disk", f"{ahead['outlook']['disk']['needed'] / 1e9:.2f} GB"
    yield "Steps", f"{batches['steps']:,}"
    yield "Pairs", f"{ahead['pairs']['train']:,} + {ahead['pairs']['held_out']:,} held out"
    if cut := ahead["cut"] + ahead["dropped"]:
        yield "Cut or dropped", f"{cut:,}"
