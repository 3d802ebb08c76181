"""What came of a finished run, in a sentence or two that anybody reads: first whether its replies changed, and how.

Reward accuracy does not begin it, as that rises where no reply changes. Reads figures only, and loads nothing heavy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..preferences.pairs import counted
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
"""What the reference is called."""

FEW = 0.2
"""The share of replies up to which a change is none to speak of."""
NEAR = 0.01
"""Nats a token below which policy and reference are much the same to a reader: one in a reply of a hundred tokens.
Drawn with the same random numbers, many replies differ by a word even so."""
HALFWAY = 0.5
"""The share of the way to the chosen replies' length that replies have to go before that says that they learned."""
APART = 1.2
"""Times that one length is the other before it is worth a word."""
STUTTER = 0.05
"""The share of a reply's 4-grams that have to come again, beyond those before, to be told; `REPEATS` is too much."""
LOST = {
    "likelihood-displacement": "even the chosen replies became unlikely",
    "over-optimised": "training went on when there was nothing left to learn, at the cost of the rest",
    "far-from-reference": "what it writes is nothing that it would have written before",
    "diverging": "training diverged",
}
"""Kinds of findings, where they are grave, of which comes an adapter worse than a weaker one would be."""


@dataclass(frozen=True)
class Headline:
    """What came of a run; the sentence begins with what its grade means."""

    grade: Grade
    sentence: str

    @property
    def short(self) -> str:
        """The grade in two or three words, for a list."""
        return SHORT[self.grade]


def headline_of(run: Run, *, name: str = "") -> Headline:
    """Say what came of a *run* that has its evaluation; commands call it *name*, by default its id.

    What training went through is not held against the adapter of an earlier, better point, if that was kept.
    """
    report = run.report
    findings = [] if report.get("auto_stop") else diagnose(run)
    before = EARLIER if report.get("continues") else BASE
    return headline(run.evaluation, findings, before=before, run=name or run.id)


def headline(
    evaluation: Mapping[str, float], findings: Sequence[Finding], *, before: str = BASE, run: str = "RUN"
) -> Headline:
    """Grade what evaluation.json says, and what health found; *before* names the reference, *run* the run."""
    figures = _Figures({name: figure for name, figure in evaluation.items() if math.isfinite(figure)})
    evidence = list(_evidence(figures))
    better, told = next((found for found in evidence if found[0] is not None), (evidence or [(None, "")])[0])
    grade, why, advice = _graded(figures, findings, better)
    told = "" if grade == "hardly" else told  # what says nothing of a change is not worth a word
    changed = ", and ".join(part for part in (_changed(figures, grade), told) if part)
    advice = advice.replace("RUN", run)
    parts = (_sentence(OPENINGS[grade], why, changed), _sentence("", *_distances(figures, before)), advice)
    return Headline(grade, " ".join(part for part in parts if part))


def accuracy_interval(evaluation: Mapping[str, float]) -> Interval:
    """Bound held-out reward accuracy: as it was measured over prompts, or else as if each pair were a draw."""
    low, high = (evaluation.get(f"reward_accuracy_{end}", math.nan) for end in ("low", "high"))
    share, pairs = evaluation.get("reward_accuracy", math.nan), int(evaluation.get("pairs", 0))
    return wilson(share, pairs) if math.isnan(low) and not math.isnan(share) else (low, high)


@dataclass(frozen=True)
class _Figures:
    """What evaluation.json says, as far as it is a number."""

    of: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        return self.of.get(name, math.nan)

    def interval(self, name: str) -> Interval:
        return self[f"{name}_low"], self[f"{name}_high"]

    def side(self, name: str, middle: float) -> bool | None:
        """Whether a figure is surely above the *middle*, or surely below; None where neither is sure."""
        low, high = self.interval(name)
        return True if low > middle else False if high < middle else None

    @property
    def ordered(self) -> bool:
        """Whether held-out pairs are surely ordered better than by a coin."""
        return accuracy_interval(self.of)[0] > 0.5

    @property
    def repeats(self) -> float:
        """What share more of a reply repeats itself than before."""
        return self["repeated_after"] - self["repeated_before"]

    @property
    def wants_length(self) -> bool:
        """Whether replies are now surely, and by half the way at least, nearer to the chosen ones in length."""
        then, now, chosen = (self[f"length_{whose}"] for whose in ("before", "after", "chosen"))
        return (
            self.side("length_change", 0) == (chosen > then)
            and max(then, chosen) >= APART * min(then, chosen)
            and abs(now - chosen) <= HALFWAY * abs(then - chosen)
        )


def _evidence(figures: _Figures) -> Iterator[tuple[bool | None, str]]:
    """What says whether replies are better, the weightiest first: the verdict, None where it is open, and its words."""
    for name, who in (("", "people"), ("judge_", "a judge model")):
        if f"{name}win_rate" in figures.of:
            rate, (low, high) = figures[f"{name}win_rate"], figures.interval(f"{name}win_rate")
            comparisons = counted(int(figures[f"{name}comparisons"]), "comparison")
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
    """The grade, why so if no figure of the replies says it, and what to do."""
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
    """How far it went, and what is not as it was."""
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
    """An *opening*, and what else there is, as one sentence."""
    told = "; ".join(part for part in parts if part)
    whole = ": ".join(part for part in (opening, told) if part)
    return f"{whole[0].upper()}{whole[1:]}." if whole else ""
