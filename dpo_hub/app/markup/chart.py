"""A line chart as SVG: it uses the page's colours and fonts, scales with its column, and has its figures as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]
"""Steps and values, in order; NaN leaves a gap."""

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 42, 8, 8, 22
MOST_POINTS = 240
"""More points than this would be less than a pixel apart."""


def chart(title: str, series: Mapping[str, Points], *, steps: int, form: str = ".2f", whole: bool = False) -> str:
    """Draw the named *series* over 0 … *steps*; *whole* fixes the values' range at 0 … 1."""
    thinned = {name: _thinned(points) for name, points in series.items()}
    values = [value for points in thinned.values() for _, value in points if math.isfinite(value)]
    low, high = (0.0, 1.0) if whole else _range(values)
    legend = "".join(_legend(number, name, points, form) for number, (name, points) in enumerate(thinned.items()))
    lines = "".join(_line(number, points, steps, low, high) for number, points in enumerate(thinned.values()))
    told = "; ".join(f"{name} {_last(points, form)}" for name, points in thinned.items())
    return (
        f'<figure class="chart"><figcaption>{escape(title)}<span class="legend">{legend}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}: {escape(told)}">'
        f"{_frame(steps, low, high, form)}{lines}</svg></figure>"
    )


def _thinned(points: Points) -> Points:
    every = math.ceil(len(points) / MOST_POINTS)
    return [*points[:: max(every, 1)], *points[-1:]]


def _range(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    room = (high - low or abs(high) or 1.0) * 0.08
    return low - room, high + room


def _last(points: Points, form: str) -> str:
    return format(points[-1][1], form) if points else "…"


def _legend(number: int, name: str, points: Points, form: str) -> str:
    return f'<span class="s{number}">{escape(name)} <b>{_last(points, form)}</b></span>'


def _frame(steps: int, low: float, high: float, form: str) -> str:
    """The grid, and the figures along its edges."""
    parts = []
    for value in (low, (low + high) / 2, high):
        y = _y(value, low, high)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:{form}}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 6}">0</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">step {steps or "…"}</text>')
    return "".join(parts)


def _line(number: int, points: Points, steps: int, low: float, high: float) -> str:
    """One series; a gap begins a new piece, and a single point is drawn as a dot by the round line ends."""
    path, broken = [], True
    for step, value in points:
        if not math.isfinite(value):
            broken = True
            continue
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / max(steps, step, 1)
        path.append(f"{'M' if broken else 'L'}{x:.1f} {_y(value, low, high):.1f}{'h0' if broken else ''}")
        broken = False
    return f'<path class="s{number}" d="{"".join(path)}"/>'


def _y(value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low)
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, max(0.0, share))
