"""The picture of a run's curves."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from dpo_hub import Run
from dpo_hub.hub.curves import MOST_POINTS, PANELS, _thinned, draw_curves

NAMES = [name for panel in PANELS.values() for name in panel]


def run_of(folder: Path, steps: int, *, points: int = 0, value: float = 1.0) -> Run:
    run = Run(folder)
    for step in range(1, steps + 1):
        run.append_metrics({"step": step, **dict.fromkeys(NAMES, value / step)})
    for step in range(1, points + 1):
        run.append_evaluation({"step": step, **dict.fromkeys(NAMES, value / step)})
    return run


@pytest.mark.parametrize(("steps", "points"), [(1, 0), (30, 5), (1000, 5)])
def test_a_run_has_its_picture(tmp_path: Path, steps: int, points: int) -> None:
    """Runs of one step and of many have a picture of 800 pixels' width, the same to the byte when drawn again."""
    run = run_of(tmp_path, steps, points=points)
    draw_curves(run)
    picture = (tmp_path / "curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert struct.unpack(">I", picture[16:20]) == (800,)
    draw_curves(run)
    assert (tmp_path / "curves.png").read_bytes() == picture
    assert not list(tmp_path.glob(".*"))


def test_held_out_points_are_drawn(tmp_path: Path) -> None:
    """The picture differs with the interim evaluations."""
    pictures = []
    for points in (2, 3):
        folder = tmp_path / str(points)
        folder.mkdir()
        draw_curves(run_of(folder, 9, points=points))
        pictures.append((folder / "curves.png").read_bytes())
    assert pictures[0] != pictures[1]


def test_a_run_that_broke_down_has_a_picture(tmp_path: Path) -> None:
    """Figures that are no numbers leave gaps."""
    draw_curves(run_of(tmp_path, 4, points=2, value=float("nan")))
    assert (tmp_path / "curves.png").is_file()


def test_many_steps_are_drawn_as_means() -> None:
    """A long run's line has at most so many points, each the mean of neighbouring steps."""
    steps = [{"step": step, **dict.fromkeys(NAMES, float(step))} for step in range(1, 401)]
    assert [point["loss"] for point in _thinned(steps)] == [1.5 + 2 * at for at in range(MOST_POINTS)]
