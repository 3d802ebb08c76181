"""The doctor's findings: one problem each, the rows that show it, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..pairs import SHOWN_ROWS, format_rows, pluralise

Severity = Literal["high", "medium", "low"]
"""high: fix it before training; medium: look at the rows; low: good to know."""
_ORDER: tuple[Severity, ...] = ("high", "medium", "low")


@dataclass(frozen=True)
class Finding:
    """One problem found in the pairs; `rows` are the first rows of the source that show it."""

    kind: str
    message: str
    count: int
    rows: Sequence[int]
    advice: str
    severity: Severity

    @property
    def hint(self) -> str:
        """What to do, and in which rows."""
        return f"{self.advice} ({format_rows(self.rows)})" if self.rows else self.advice


@dataclass
class Tally:
    """How many pairs show a problem, and the rows of the first few."""

    count: int = 0
    rows: list[int] = field(default_factory=list)

    def add(self, row: int) -> None:
        """Count a pair."""
        self.count += 1
        if len(self.rows) < SHOWN_ROWS:
            self.rows.append(row)

    def finding(self, kind: str, message: str, advice: str, severity: Severity) -> Finding:
        """The finding that reports these pairs."""
        return Finding(kind, message, self.count, self.rows, advice, severity)


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """Sort *findings* by severity, and within the same severity by frequency."""
    return sorted(findings, key=lambda finding: (_ORDER.index(finding.severity), -finding.count))


def of_all(count: int, total: int, noun: str = "pair") -> str:
    """`12 of 500 pairs (2%)`."""
    return f"{count:,} of {pluralise(total, noun)} ({percent(count, total)})"


def percent(count: int, total: int) -> str:
    """`86%`, `2.4%`, `under 0.1%`."""
    share = count / total
    if share < 0.001:
        return "under 0.1%"
    return f"{share:.0%}" if share > 0.095 else f"{share:.1%}"
