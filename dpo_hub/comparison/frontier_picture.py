"""Plots the reward-KL frontier. Imports matplotlib only when it draws."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from ..errors import explaining_disk_full, needing_extra
from ..hub.curves import FAINT, INK
from .frontier import Point, frontier, recommended

SHADES = ("#2868b0", "#c8641e", "#3a8a4d", "#8a4fa3", "#b03a48", "#5b6770", "#a58a1c", "#1c8ea5")
MARKS = ("o", "s")
"""The second is for losses beyond the number of shades."""
LABELLED = 24
"""The most points that get labels; more labels would overlap."""


def draw_frontier(points: Sequence[Point], path: Path) -> None:
    """Plot reward accuracy against KL to *path*: one colour per loss, 95 % intervals, the frontier as a line.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DiskFullError: the disk is full.
    """
    with needing_extra("train"):
        from matplotlib.figure import Figure
    known = [point for point in points if isfinite(point.kl)]
    figure = Figure(figsize=(8, 5), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots()
    line = sorted(frontier(known), key=lambda point: point.kl)
    axes.plot(
        [p.kl for p in line], [p.accuracy for p in line], color=INK, linewidth=1, linestyle="--", label="frontier"
    )
    for number, loss in enumerate(dict.fromkeys(point.loss for point in known)):
        of = [point for point in known if point.loss == loss]
        spread = [[abs(p.accuracy - p.interval[end]) for p in of] for end in (0, 1)]
        axes.errorbar(
            [p.kl for p in of],
            [p.accuracy for p in of],
            yerr=spread,
            fmt=MARKS[number // len(SHADES) % len(MARKS)],
            color=SHADES[number % len(SHADES)],
            elinewidth=0.8,
            markersize=7,
            label=loss,
        )
    for point in known if len(known) <= LABELLED else ():
        axes.annotate(f"β {point.beta:g}", (point.kl, point.accuracy), (6, 5), textcoords="offset points", color=INK)
    if chosen := recommended(points):
        axes.plot(chosen.kl, chosen.accuracy, "o", markersize=15, fillstyle="none", color=INK, label="recommended")
    axes.axhline(0.5, color=FAINT, linewidth=1.5, zorder=0)
    axes.set_xlabel("KL(π‖π_ref), nats a token", color=INK)
    axes.set_ylabel("held-out reward accuracy", color=INK)
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=INK)
    figure.legend(frameon=False, labelcolor=INK, loc="outside upper center", ncols=6)
    with explaining_disk_full(path.parent):
        figure.savefig(path, format="png", metadata={"Software": None})
