"""The list of runs beside the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import urlencode

from ...runs.progress import Progress
from ...runs.run import Run

NO_RUNS = '<p class="hint">Your runs are listed here once there are some.</p>'


def runs(found: Sequence[tuple[Run, Progress]], current: str) -> str:
    """Links to the runs, with the status of each and the open one marked."""
    if not found:
        return NO_RUNS
    return f'<nav aria-label="Runs"><ul class="runs">{"".join(_item(*one, current) for one in found)}</ul></nav>'


def _item(run: Run, goes: Progress, current: str) -> str:
    step = "compare" if goes.status == "finished" else "train"
    here = ' aria-current="page"' if run.id == current else ""
    done = f"{goes.step}/{goes.steps}" if goes.status == "running" and goes.steps else goes.status
    done = goes.headline.short if goes.headline else done
    address = escape("?" + urlencode({"run": run.id, "step": step}))
    return (
        f'<li><a href="{address}"{here}><span class="name">{escape(run.id)}</span>'
        f'<span class="badge {escape(goes.status)}">{escape(done)}</span></a></li>'
    )
