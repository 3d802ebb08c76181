"""The little HTML that the page writes itself. Whatever comes from files or models is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .handlers import Preview, Progress

HEADER = """
<header class="masthead">
  <h1>dpo_hub</h1>
  <p>Give it pairs of replies, one chosen and one rejected, and it trains a model to answer like the chosen ones, then
  shows you both side by side.</p>
</header>
"""

NO_RUN = '<p class="hint">Nothing trained yet. The curves appear here as soon as a run starts.</p>'


def step_title(number: int, title: str, hint: str) -> str:
    """The heading of one of the page's steps."""
    return f'<div class="step"><span class="number">{number}</span><h2>{title}</h2><p>{hint}</p></div>'


def reading(preview: Preview) -> str:
    """What a file was read as, and its first pairs."""
    first = table("The first pairs", ("prompt", "chosen", "rejected"), preview.rows)
    return f'<p class="reading">{escape(preview.sentence)}</p>{first}'


def samples(progress: Progress) -> str:
    """The replies to held-out prompts that the worker left, or nothing."""
    rows = [(sample["prompt"], sample["before"], sample["after"]) for sample in progress.samples]
    return table("Replies to held-out prompts", ("prompt", "before", "after"), rows) if rows else ""


def table(caption: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts. Each cell names its column too, for screens too narrow for columns."""
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


def panel(progress: Progress) -> str:
    """How a run goes: its sentence, a bar, and the last step's figures."""
    bar = f'<progress max="{progress.steps or 1}" value="{progress.step}" aria-label="Steps done"></progress>'
    figures = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in _figures(progress).items())
    return (
        f'<div class="run {escape(progress.status)}">'
        f'<p class="sentence" role="status"><span class="badge">{escape(progress.status)}</span>'
        f"{escape(progress.sentence)}</p>{bar}<dl>{figures}</dl>"
        f'<p class="about">{escape(progress.about)} · run {escape(progress.run)}</p></div>'
    )


def _figures(progress: Progress) -> dict[str, str]:
    last = progress.curve[-1] if progress.curve else {}
    shown = {"Step": f"{progress.step} / {progress.steps or '…'}"}
    for name, key, form in (
        ("Loss", "loss", ".3f"),
        ("Margin", "margin", "+.2f"),
        ("Accuracy", "reward_accuracy", ".0%"),
    ):
        shown[name] = format(last[key], form) if key in last else "…"
    if progress.reward_accuracy is not None:
        shown["Held-out accuracy"] = f"{progress.reward_accuracy:.0%}"
    return shown
