"""The progress of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ...runs.health import Finding
from ..handlers.training import Progress
from . import finding as card
from . import findings as cards
from . import table
from .chart import Points, chart

NO_RUN = (
    '<p class="hint">No run is open. Choose preferences, then a recipe, and press Train; or open one from the list of '
    "runs.</p>"
)


def panel(progress: Progress) -> str:
    """The progress of a run: its sentence, a bar, and the last step's figures."""
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
        low, high = progress.accuracy_interval
        shown["Held-out accuracy"] = f"{progress.reward_accuracy:.0%} ({low:.0%} to {high:.0%})"
    if progress.memory:
        shown["Memory"] = f"{progress.memory / 1e9:.1f} GB"
    return shown


def curves(progress: Progress) -> str:
    """Charts of the figures that show whether the model learns."""

    def of(key: str, lines: Sequence[Mapping[str, Any]] = progress.curve) -> Points:
        return [(line["step"], line.get(key, math.nan)) for line in lines]

    looks = progress.evaluations
    charts = (
        chart("Loss", {"trained": of("loss"), "held out": of("loss", looks)}, steps=progress.steps),
        chart("Margin", {"trained": of("margin"), "held out": of("margin", looks)}, steps=progress.steps),
        chart(
            "Reward accuracy",
            {"trained": of("reward_accuracy"), "held out": of("reward_accuracy", looks)},
            steps=progress.steps,
            form=".0%",
            whole=True,
        ),
        chart("Rewards", {"chosen": of("chosen_reward"), "rejected": of("rejected_reward")}, steps=progress.steps),
    )
    return f'<div class="charts">{"".join(charts)}</div>' if progress.curve else ""


def findings(found: Sequence[Finding]) -> str:
    """The problems found, each with the one change to try first."""
    return cards((card(one.severity, one.message, one.advice) for one in found), "What goes wrong")


def samples(progress: Progress) -> str:
    """Replies to held-out prompts: from before and after training at the end, and until then the latest ones."""
    if progress.samples:
        told = [[sample[part] for part in ("prompt", "before", "after")] for sample in progress.samples]
        return table("Replies to held-out prompts", ("prompt", "before", "after"), told)
    if not progress.evaluations:
        return ""
    look = progress.evaluations[-1]
    rows = [(reply["prompt"], reply["reply"]) for reply in look.get("replies", ())]
    return table(f"Replies to held-out prompts at step {look['step']}", ("prompt", "reply"), rows)
