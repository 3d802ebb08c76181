"""Records figures measured after training: in the run's evaluation, and in its card unless someone edited it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from filelock import FileLock

from ..hub.card import render_card
from ..runs.run import Run


def lock_of(run: Run) -> FileLock:
    """The lock to hold while writing votes or judgements of *run*, or figures from them."""
    return FileLock(run.path / ".votes.lock")


def save_figures(run: Run, figures: Mapping[str, float], *, instead_of: str | tuple[()] = ()) -> bool:
    """Add *figures*, if any, to *run*'s evaluation, replacing names that begin with *instead_of*; update its card.

    The caller must hold `lock_of`. Returns False if the card differs from what would have been rendered before:
    someone edited it, and it is left unchanged.
    """
    rendered = not (run.path / "README.md").is_file() or run.card == render_card(run)
    if figures:
        kept = {name: value for name, value in run.evaluation.items() if not name.startswith(instead_of)}
        run.write("evaluation.json", json.dumps(kept | dict(figures), indent=2))
    if rendered:
        run.write("README.md", render_card(run))
    return rendered
