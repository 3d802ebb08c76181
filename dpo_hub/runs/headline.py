"""Summarises a finished run in a sentence or two for everyone: first whether its replies changed, and how.

Reward accuracy does not come first, because it can rise even if no reply changes. Only reads figures, with no heavy
imports.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..preferences.pairs import pluralise
from .health import Finding, diagnose
from .health.drift import FAR, LONGER, REPEATS
from .intervals import Interval, wilson
from .run import Run

Grade = Literal["learned", "hardly", "too-much", "worse", "unclear", "unmeasured"]

OPENINGS: Mapping[Grade, str] = {
    "learned": "It learned it",
    "hardly": "It hardly changed",
    "too-much": "It changed too much",
    "worse": "It changed, but for the worse",
    "unclear": "It changed, but not clearly for the better",
    "unmeasured": "Whether its replies changed was not measured",
}
SHORT: Mapping[Grade, str] = {
    "learned": "Learned it",
    "hardly": "Hardly changed",
    "too-much": "Changed too much",
    "worse": "Changed for the worse",
    "unclear": "Not clearly better",
    "unmeasured": "Not compared",
}
BASE, EARLIER = "the base model", "the run it began with"
"""Names for the reference."""

FEW = 0.2
"""Up to this share of changed replies, the change is negligible."""
NEAR = 0.01
"""Nats per token below which policy and reference look much the same to a reader: one nat in a reply of a hundred
tokens. Even so, many replies sampled with the same random numbers differ by a word."""
HALFWAY = 0.5
"""How much of the gap to the chosen replies' length may remain for a change in length to count as learning."""
APART = 1.2
"""Ratio of two lengths above which the difference is worth mentioning."""
STUTTER = 0.05
"""Increase in the share of repeated 4-grams above which it is reported; above `REPEATS` it is too much."""
LOST = {
    "likelihood-displacement": "even the chosen replies became unlikely",
    "over-optimised": "training went on when there was nothing left to learn, at the cost of the rest",
    "far-from-reference": "what it writes is nothing that it would have written before",
    "diverging": "training diverged",
}
"""Kinds of findings that, if severe, make the adapter worse than a weaker one would be."""


@dataclass(frozen=True)
class Headline:
    """The result of a run; the sentence begins with the meaning of its grade."""

    grade: Grade
    sentence: str

    @property
    def short(self) -> str:
        """The grade in two or three words, for a list."""
        return SHORT[self.grade]


def headline_of(run: Run, *, name: str = "") -> Headline:
    """Summarise a *run* that has been evaluated; commands in the text call it *name*, by default its id.

    If auto-stop kept the adapter of an earlier, better point, problems during training do not count against it.
    """
    report = run.report
    findings = [] if report.get("auto_stop") else diagnose(run)
    before = EARLIER if report.get("continues") else BASE
    return headline(run.evaluation, findings, before=before, run=name or run.id)


def headline(
    evaluation: Mapping[str, float], findings: Sequence[Finding], *, before: str = BASE, run: str = "RUN"
) -> Headline:
    """Grade the figures of evaluation.json and the health findings; *before* names the reference, *run* the run."""
    figures = _Figures({name: figure for name, figure in evaluation.items() if math.isfinite(figure)})
    evidence = list(_evidence(figures))
    better, told = next((found for found in evidence if found[0] is not None), (evidence or [(None, "")])[0])
    grade, why, advice = _graded(figures, findings, better)
    told = "" if grade == "hardly" else told  # not worth mentioning, as hardly anything changed
    changed = ", and ".join(part for part in (_changed(figures, grade), told) if part)
    advice = advice.replace("RUN", run)
    parts = (_sentence(OPENINGS[grade], why, changed), _sentence("", *_distances(figures, before)), advice)
    return Headline(grade, " ".join(part for part in parts if part))


def accuracy_interval(evaluation: Mapping[str, float]) -> Interval:
    """Bound held-out reward accuracy: as measured over prompts, or otherwise as if each pair were a separate draw."""
    low, high = (evaluation.get(f"reward_accuracy_{end}", math.nan) for end in ("low", "high"))
    share, pairs = evaluation.get("reward_accuracy", math.nan), int(evaluation.get("pairs", 0))
    return wilson(share, pairs) if math.isnan(low) and not math.isnan(share) else (low, high)


@dataclass(frozen=True)
class _Figures:
    """The finite figures of evaluation.json; missing ones are NaN."""

    of: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        return self.of.get(name, math.nan)

    def interval(self, name: str) -> Interval:
        return self[f"{name}_low"], self[f"{name}_high"]

    def side(self, name: str, middle: float) -> bool | None:
        """True if a figure is surely above *middle*, False if it is surely below; None if neither is certain."""
        low, high = self.interval(name)
        return True if low > middle else False if high < middle else None

    @property
    def ordered(self) -> bool:
        """Whether held-out pairs are surely ordered better than by chance."""
        return accuracy_interval(self.of)[0] > 0.5

    @property
    def repeats(self) -> float:
        """The increase in the share of a reply that repeats itself."""
        return self["repeated_after"] - self["repeated_before"]

    @property
    def wants_length(self) -> bool:
        """Whether reply lengths have surely moved towards the chosen ones, by at least half the gap."""
        then, now, chosen = (self[f"length_{whose}"] for whose in ("before", "after", "chosen"))
        return (
            self.side("length_change", 0) == (chosen > then)
            and max(then, chosen) >= APART * min(then, chosen)
            and abs(now - chosen) <= HALFWAY * abs(then - chosen)
        )


def _evidence(figures: _Figures) -> Iterator[tuple[bool | None, str]]:
    """Yield the evidence on whether replies are better, strongest first: a verdict, None if open, and its wording."""
    for name, who in (("", "people"), ("judge_", "a judge model")):
        if f"{name}win_rate" in figures.of:
            rate, (low, high) = figures[f"{name}win_rate"], figures.interval(f"{name}win_rate")
            comparisons = pluralise(int(figures[f"{name}comparisons"]), "comparison")
            told = (
                f"{who} preferred the new reply in {rate:.0%} of {comparisons} (95% interval {low:.0%} to {high:.0%})"
            )
            yield figures.side(f"{name}win_rate", 0.5), told
    if "like_chosen_change" in figures.of:
        then, now = figures["like_chosen_before"], figures["like_chosen_after"]
        low, high = (100 * end for end in figures.interval("like_chosen_change"))
        told = (
            f"{now:.0%} now read like the chosen ones, before {then:.0%} (95% interval of the change: {low:+.0f} to "
            f"{high:+.0f} points)"
        )
        gained = figures.side("like_chosen_change", 0)
        yield (None if gained and not figures.ordered else gained), told
    elif figures.wants_length and figures.ordered:
        yield True, "their length is nearer to that of the chosen ones"


def _graded(figures: _Figures, findings: Sequence[Finding], better: bool | None) -> tuple[Grade, str, str]:
    """Return the grade, the reason if it is not clear from the figures of the replies, and the advice."""
    if lost := next((found for found in findings if found.kind in LOST and found.severity == "high"), None):
        return "too-much", LOST[lost.kind], lost.advice
    if figures["kl"] > FAR or figures.repeats > REPEATS:
        return "too-much", "", "Train it again with a lower --learning-rate, or for fewer --epochs."
    if "changed" not in figures.of:
        return "unmeasured", "", "Compare them now: dpo-hub evaluate RUN"
    if figures["changed"] <= FEW or (figures["kl"] < NEAR and not better):
        advice = next((found.advice for found in findings if found.kind == "no-learning"), "")
        return "hardly", "", advice or "Train it again with a higher --learning-rate, three to ten times as high."
    if better is None:
        return "unclear", "", "" if "win_rate" in figures.of else "Which are better, you can say: dpo-hub vote RUN"
    return ("learned" if better else "worse"), "", ""


def _changed(figures: _Figures, grade: Grade) -> str:
    if not {"changed", "prompts"} <= figures.of.keys():
        return ""
    share, prompts = figures["changed"], int(figures["prompts"])
    if not share:
        return f"all {prompts:,} held-out replies are word for word what they were"
    little = ", but little" if grade == "hardly" and share > FEW else ""
    return f"{round(share * prompts)} of {prompts} held-out replies changed{little}"


def _distances(figures: _Figures, before: str) -> Iterator[str]:
    """Yield how far the policy moved, and what else changed."""
    if "kl" in figures.of:
        nats = f"{figures['kl']:.2g}" if figures["kl"] >= 0.001 else "less than 0.001"
        yield f"it moved {nats} nats a token (KL) from {before}"
    then, now, chosen = (figures[f"length_{whose}"] for whose in ("before", "after", "chosen"))
    if figures.side("length_change", 0) is not None and (then >= APART * now or now >= APART * then):
        beyond = "far beyond the chosen ones: " if now > LONGER * max(then, chosen) else "chosen: "
        aim = "" if math.isnan(chosen) else f" ({beyond}{chosen:.0f})"
        yield f"replies went from {then:.0f} to {now:.0f} tokens{aim}"
    if figures.repeats > STUTTER:
        yield f"they repeat themselves: {figures['repeated_after']:.0%} of it, before {figures['repeated_before']:.0%}"


def _sentence(opening: str, *parts: str) -> str:
    """Join *opening* and the non-empty *parts* into one sentence."""
    told = "; ".join(part for part in parts if part)
    whole = ": ".join(part for part in (opening, told) if part)
    return f"{whole[0].upper()}{whole[1:]}." if whole else ""
