"""The win rate if replies before and after were equally long. Knows nothing of who compared them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import needing_extra
from ..runs.intervals import Interval, bootstrap

RIDGE = 0.01
"""Weight of the squared coefficients: tiny next to a comparison, but it keeps fits to separable data finite."""
MOST_STEPS, SETTLED = 50, 1e-8
FEWEST = 4
"""The fewest comparisons to which two coefficients are fitted."""


@dataclass(frozen=True)
class LengthControlled:
    """A win rate at equal lengths, 0..1, with its interval."""

    win_rate: float
    interval: Interval


def as_figures(found: LengthControlled | None) -> dict[str, float]:
    """The figures named as in evaluation.json; empty for None."""
    if found is None:
        return {}
    low, high = found.interval
    return {
        "length_controlled": found.win_rate,
        "length_controlled_low": low,
        "length_controlled_high": high,
    }


def length_sentences(found: LengthControlled | None) -> list[str]:
    """The same for people: one sentence, or none for None."""
    if found is None:
        return []
    low, high = found.interval
    return [
        f"At equal lengths after would be preferred in {found.win_rate:.0%} (95% interval {low:.0%} to {high:.0%})."
    ]


def length_controlled(outcomes: Sequence[float], differences: Sequence[float]) -> LengthControlled | None:
    """Estimate the win rate at equal lengths, as in AlpacaEval 2 LC (Dubois et al. 2024, arXiv:2404.04475).

    P("after" wins) = sigmoid(θ + φ·tanh(Δ/σ)) is fitted by logistic regression, with Δ the difference of the lengths
    and σ its root mean square, and evaluated at Δ = 0, as sigmoid(θ). A tie is half a win and half a loss. A ridge of
    `RIDGE`·(θ² + φ²) keeps it finite if one side always wins. The paper's term for a prompt's difficulty is omitted:
    it is estimated from many models. Returns None for fewer than `FEWEST` comparisons, and if all have the same
    outcome: resamples would all be identical too, and give an interval of zero width.

    Args:
        outcomes: for each comparison, 1 if "after" won, 0 if "before" did, 0.5 for a tie.
        differences: for each, the length of "after" minus that of "before", in any unit.

    Raises:
        MissingExtraError: numpy or scipy is not installed.
    """
    with needing_extra("train"):
        import numpy as np
    if len(outcomes) < FEWEST or len(set(outcomes)) == 1:
        return None
    won, delta = np.asarray(outcomes, dtype=float), np.asarray(differences, dtype=float)
    spread = float(np.sqrt(np.mean(delta**2))) or 1.0
    longer = np.tanh(delta / spread)
    interval = bootstrap(won.tolist(), longer.tolist(), statistic=_fit_win_rate)
    estimate = float(_fit_win_rate(won, longer))
    return LengthControlled(estimate, interval or (estimate, estimate))


def _fit_win_rate(won: Any, longer: Any, axis: int = -1) -> Any:
    """sigmoid(θ) of the fits along *axis*, by Newton's method, for all resamples at once."""
    import numpy as np

    won, longer = (np.moveaxis(np.asarray(array), axis, -1) for array in (won, longer))
    theta = np.zeros(won.shape[:-1])
    phi = np.zeros_like(theta)
    for _ in range(MOST_STEPS):
        chance = 1 / (1 + np.exp(-(theta[..., None] + phi[..., None] * longer)))
        missed, weight = chance - won, chance * (1 - chance)
        slope = missed.sum(-1) + 2 * RIDGE * theta, (missed * longer).sum(-1) + 2 * RIDGE * phi
        a, c = weight.sum(-1) + 2 * RIDGE, (weight * longer**2).sum(-1) + 2 * RIDGE
        b = (weight * longer).sum(-1)
        determinant = a * c - b**2
        steps = (c * slope[0] - b * slope[1]) / determinant, (a * slope[1] - b * slope[0]) / determinant
        theta, phi = theta - steps[0], phi - steps[1]
        if max(np.abs(steps[0]).max(), np.abs(steps[1]).max()) < SETTLED:
            break
    return 1 / (1 + np.exp(-theta))
