"""Where figures that were measured after training go: the run's evaluation, and its card unless somebody edited it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from filelock import FileLock

from ..hub.card import render_card
from ..runs.run import Run


def lock_of(run: Run) -> FileLock:
    """Held by whoever writes votes of *run*, or what they come to."""
    return FileLock(run.path / ".votes.lock")


def record(run: Run, figures: Mapping[str, float], *, instead_of: str | tuple[()] = ()) -> bool:
    """Add *figures* to the evaluation of *run*, and render its card again. Names that begin with *instead_of* go.

    Only for who holds `lock_of`. Returns False where the card is not what would have been rendered before: somebody
    edited it, and it stays so.
    """
    rendered = not (run.path / "README.md").is_file() or run.card == render_card(run)
    if figures:
        kept = {name: value for name, value in run.evaluation.items() if not name.startswith(instead_of)}
        run.write("evaluation.json", json.dumps(kept | dict(figures), indent=2))
    if rendered:
        run.write("README.md", render_card(run))
    return rendered
