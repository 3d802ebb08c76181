"""The curves of a run as an image. Knows nothing of the Hub; loads matplotlib only to draw."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import needing_extra
from ..runs.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = Sequence[Mapping[str, Any]]
CURVES = "curves.png"
PANELS = {
    "Loss": ("loss",),
    "Margin": ("margin",),
    "Reward accuracy": ("reward_accuracy",),
    "Rewards of chosen and rejected": ("chosen_reward", "rejected_reward"),
}
COLORS = ("#2868b0", "#c8641e")
INK, FAINT = "#3a3f47", "#e3e6ea"
MOST_POINTS = 200
"""The most points on a line: with more steps, each point is the mean of several."""


def draw_curves(run: Run) -> None:
    """Draw the run's metrics by step, held-out points as dots, to `curves.png` in its folder; the bytes never vary.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with needing_extra("train"):
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(8, 5.2), dpi=100, facecolor="white", layout=layout)  # 800 pixels wide
    lines, dots = _thinned(run.metrics), run.evaluations
    for axes, (title, names) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        _draw(axes, title, names, lines, dots)
    told = "Lines: training pairs, by step." + (" Dots: held-out pairs." if dots else "")
    figure.supxlabel(told, fontsize=9, color=INK)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    run.write(CURVES, picture.getvalue())


def _draw(axes: Axes, title: str, names: Sequence[str], lines: Points, dots: Points) -> None:
    for name, color in zip(names, COLORS, strict=False):
        label = name.removesuffix("_reward")
        marker = "." if len(lines) < 3 else ""  # a line with a single point would be invisible
        axes.plot(*_xy(lines, name), color=color, linewidth=1.4, marker=marker, label=label)
        axes.plot(*_xy(dots, name), "o", color=color, markersize=6, markeredgecolor="white")
    axes.set_title(title, fontsize=10.5, loc="left", color=INK)
    axes.tick_params(labelsize=8.5, length=0, colors=INK)
    axes.locator_params(axis="x", integer=True)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    if title == "Reward accuracy":
        axes.set_ylim(-0.04, 1.04)
    if len(names) > 1:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)


def _xy(points: Points, name: str) -> tuple[list[float], list[float]]:
    return [point["step"] for point in points], [point[name] for point in points]


def _thinned(steps: Points) -> list[dict[str, float]]:
    """The means of equal groups of neighbouring *steps*, so that at most `MOST_POINTS` are left."""
    size = -(-len(steps) // MOST_POINTS) or 1
    parts = [steps[at : at + size] for at in range(0, len(steps), size)]
    names = {"step", *(name for panel in PANELS.values() for name in panel)}
    return [{name: sum(step[name] for step in part) / len(part) for name in names} for part in parts]
