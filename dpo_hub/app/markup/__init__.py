"""The HTML that the app generates itself, a module a step. All text from files, models or logs is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

HEADER = """
<header class="masthead">
  <h1>dpo_hub</h1>
  <p>Pairs of replies go in, one chosen and one rejected; a model that answers like the chosen ones comes out, and you
  see both side by side.</p>
</header>
"""


def hint(text: str) -> str:
    """A line of advice."""
    return f'<p class="hint">{escape(text)}</p>'


def finding(severity: str, message: str, advice: str, *, word: str = "", more: str = "") -> str:
    """A card for one finding; *word* replaces its severity, and *more* is HTML below."""
    return (
        f'<li class="finding {escape(severity)}"><p><span class="badge">{escape(word or severity)}</span>'
        f"<strong>{escape(message)}</strong></p><p>{escape(advice)}</p>{more}</li>"
    )


def findings(cards: Iterable[str], label: str) -> str:
    """A list of such cards, or an empty string if there are none."""
    shown = "".join(cards)
    return f'<ul class="findings" aria-label="{escape(label)}">{shown}</ul>' if shown else ""


def table(caption: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts. Each cell also names its column, for screens too narrow for columns."""
    head = "".join(f'<th scope="col" class="{header}">{header}</th>' for header in headers)
    body = "".join(f"<tr>{_cells(headers, row)}</tr>" for row in rows)
    return (
        f'<table class="texts"><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )


def _cells(headers: Sequence[str], row: Sequence[str]) -> str:
    return "".join(
        f'<td class="{header}" data-label="{header}">{escape(text)}</td>'
        for header, text in zip(headers, row, strict=True)
    )
