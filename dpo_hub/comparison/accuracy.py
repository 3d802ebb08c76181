"""How a run's adapter ranks the replies of other preference pairs: reward accuracy with interval, margin, rewards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean

from ..errors import ModelError
from ..preferences import PreferencePair
from ..preferences.replies import Question
from ..preferences.split import prompt_digest
from ..preferences.table import Unreadable
from ..runs.intervals import wilson
from .lens import Lens


@dataclass(frozen=True)
class Accuracy:
    """Means over *pairs* pairs, named as in `training.metrics.StepMetrics`.

    `left_out` counts the pairs that could not be scored, by reason; `cut` counts those that `max_length` truncated.
    """

    pairs: int
    reward_accuracy: float
    interval: tuple[float, float]
    """The 95 % confidence interval of the accuracy (Wilson)."""
    margin: float
    chosen_reward: float
    rejected_reward: float
    ties: int
    """Pairs whose replies have the same reward; they count as wrong, as in training."""
    trained_on: int
    """Pairs with a prompt that the run was trained on, for which the figures are too optimistic."""
    cut: int
    left_out: Mapping[str, int]


def accuracy(lens: Lens, pairs: Iterable[PreferencePair], trained: Iterable[PreferencePair]) -> Accuracy:
    """Measure *pairs* as training measures held-out ones; *trained* are the pairs that the run was trained on.

    Raises:
        ModelError: no pair can be scored, or the device's memory is full.
    """
    seen = {prompt_digest(pair) for pair in trained}
    known: list[bool] = []

    def questions() -> Iterator[Question]:
        for pair in pairs:
            known.append(prompt_digest(pair) in seen)
            yield Question(pair.prompt, [pair.chosen, pair.rejected], pair.tools, pair.chat_template_kwargs)

    rewards: list[tuple[float, float]] = []
    left_out: Counter[str] = Counter()
    cut = trained_on = 0
    for place, found in enumerate(lens.score(questions())):
        if isinstance(found, Unreadable):
            left_out[found] += 1
            continue
        chosen, rejected = found
        rewards.append((chosen.reward, rejected.reward))
        cut += chosen.cut or rejected.cut
        trained_on += known[place]
    if not rewards:
        raise ModelError(f"No pair can be read, because of {', '.join(left_out)}.")
    share = fmean(better > worse for better, worse in rewards)
    chosen_reward, rejected_reward = (fmean(side) for side in zip(*rewards, strict=True))
    return Accuracy(
        pairs=len(rewards),
        reward_accuracy=share,
        interval=wilson(share, len(rewards)),
        margin=chosen_reward - rejected_reward,
        chosen_reward=chosen_reward,
        rejected_reward=rejected_reward,
        ties=sum(better == worse for better, worse in rewards),
        trained_on=trained_on,
        cut=cut,
        left_out=dict(left_out),
    )
