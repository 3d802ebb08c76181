"""What is said of runs, recorded ones (tests/runs/series, by scripts/record_health_series.py) and made-up ones.

The recorded runs are of the demo's model. The made-up ones have the scale of real models: β 0.1, learning rate 1e-5,
batches of 8, replies of 250 nats.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import pytest

from dpo_hub import Run, read_preferences
from dpo_hub.demo.shop import USES
from dpo_hub.recipe import Recipe
from dpo_hub.runs.health import Finding, diagnose, examine
from dpo_hub.runs.health.chance import binomial_cdf, clearly_above_half, clearly_below_half, fall_in_errors

SERIES = Path(__file__).parent / "series"


@dataclass(frozen=True)
class Series:
    """The figures of a run."""

    steps: Sequence[Mapping[str, float]]
    evaluations: Sequence[Mapping[str, Any]]
    recipe: Recipe
    total: int

    @classmethod
    def recorded(cls, name: str) -> Series:
        found = json.loads((SERIES / f"{name}.json").read_text(encoding="utf-8"))
        lines = {part: _lines(found[part]) for part in ("steps", "evaluations")}
        return cls(**lines, recipe=Recipe(**found["recipe"]), total=found["total"])

    def after(self, count: int) -> list[Finding]:
        """What is said after the first *count* steps."""
        return examine(self.steps[:count], self.evaluations, self.recipe, self.total)

    def said(self, share: float = 1.0) -> dict[str, Finding]:
        """Each kind of finding in the first *share* of the run, as it was first said."""
        first: dict[str, Finding] = {}
        for count in range(1, int(len(self.steps) * share) + 1):
            for finding in self.after(count):
                first.setdefault(finding.kind, finding)
        return first


def _lines(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    rows = zip(*columns.values(), strict=True)
    return [{k: math.nan if v is None else v for k, v in zip(columns, row, strict=True)} for row in rows]


@pytest.mark.parametrize("name", USES)
def test_a_good_run_is_left_in_peace(name: str) -> None:
    """Nothing is said of any of the five applications, at whatever step one asks."""
    series = Series.recorded(name)
    assert len(series.steps) == series.total >= 50
    assert len(series.evaluations) == 5
    assert series.said() == {}


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("swapped", {"labels-disagree"}),
        ("learning-rate-x100", {"diverging"}),
        ("learning-rate-0", {"no-learning"}),
        ("one-pair", {"noisy-accuracy"}),
        ("displaced", {"likelihood-displacement", "far-from-reference"}),
        ("over-optimised", {"likelihood-displacement", "far-from-reference", "over-optimised"}),
    ],
)
def test_a_bad_run_is_named_in_its_first_third(name: str, kinds: set[str]) -> None:
    """What was done wrong to a run is said by a third of its steps, and nothing else is."""
    assert set(Series.recorded(name).said(1 / 3)) == kinds


@pytest.mark.parametrize("name", sorted(path.stem for path in SERIES.glob("*.json")))
def test_a_finding_is_ready_to_be_read(name: str) -> None:
    """Each has sentences, one change to make, and the steps it was seen in."""
    for finding in Series.recorded(name).said().values():
        assert finding.severity in ("high", "medium", "low")
        assert finding.message.endswith(".")
        assert finding.advice.endswith(".")
        assert 1 <= finding.first_step <= finding.last_step


Curve = Callable[[float], float]
"""A figure in nats by the share of all learning that is done."""


def made_up(  # noqa: PLR0913  # a figure each
    *,
    loss: str = "sigmoid",
    total: int = 300,
    beta: float = 0.1,
    margin: Curve = lambda done: 12 * done,
    chosen: Curve = lambda done: -8 * done,
    held_out: Curve | None = None,
    spread: Curve = lambda mean: abs(mean) + 0.2,
    seed: int = 0,
    **point: Any,
) -> Series:
    """A run in which log-ratios of pairs are normally distributed around curves, batch by batch.

    Pairs are by default as far from their mean margin as that is from 0, and a fifth of a nat of rounding besides.
    """
    rng, recipe = Random(seed), Recipe(model="owner/name", loss=loss, beta=beta, learning_rate=1e-5)
    at = sorted(round(total * part / 5) for part in range(1, 6))
    steps, evaluations = [], []
    for step in range(1, total + 1):
        before, done = (_done(at / total) for at in (step - 1, step))  # a step is measured before its update
        steps.append(_measured(rng, step, recipe, 8, margin(before), chosen(before), spread))
        if step in at:
            evaluations.append(
                _measured(rng, step, recipe, 64, (held_out or margin)(done), chosen(done), spread)
                | {"pairs": 64, "kl": 0.1 * done, "repeated": 0.03, "reference_repeated": 0.02}
                | {f"{whose}_tokens": [rng.randint(50, 128) for _ in range(8)] for whose in LENGTHS}
                | {name: value(rng) for name, value in point.items()}
            )
    return Series(steps, evaluations, recipe, total)


LENGTHS = ("reply", "reference", "chosen")
LOSSES: dict[str, Callable[[float, float], float]] = {
    "sigmoid": lambda margin, _beta: math.log1p(math.exp(-margin)),
    "hinge": lambda margin, _beta: max(0.0, 1 - margin),
    "ipo": lambda margin, beta: (margin / beta / 150 - 1 / (2 * beta)) ** 2,
}


def _done(share: float) -> float:
    """The share of all learning that is done after this share of steps: warm-up to a tenth, then linearly down to 0."""
    return share**2 / 0.1 if share < 0.1 else 1 - (1 - share) ** 2 / 0.9


def _measured(  # noqa: PLR0913, PLR0917  # as above
    rng: Random, step: int, recipe: Recipe, pairs: int, margin: float, chosen: float, spread: Curve
) -> dict[str, float]:
    """What a batch comes to."""
    margins = [rng.gauss(margin, spread(margin)) * recipe.beta for _ in range(pairs)]
    chosens = [rng.gauss(chosen, abs(chosen) / 2 + 0.2) * recipe.beta for _ in range(pairs)]
    if step == 1:
        margins = chosens = [0.0] * pairs
    references = [rng.gauss(-250, 80) for _ in range(pairs)]
    return {
        "step": step,
        "loss": fmean(LOSSES[recipe.loss](margin, recipe.beta) for margin in margins),
        "margin": fmean(margins),
        "reward_accuracy": fmean(margin > 0 for margin in margins),
        "chosen_reward": fmean(chosens),
        "rejected_reward": fmean(chosens) - fmean(margins),
        "chosen_logp": fmean(references) + fmean(chosens) / recipe.beta,
        "rejected_logp": fmean(references) + (fmean(chosens) - fmean(margins)) / recipe.beta,
        "grad_norm": rng.uniform(1, 4),
        "learning_rate": recipe.learning_rate,
    }


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "curves",
    [
        {},
        {"margin": lambda done: 2 * done, "chosen": lambda done: -1.5 * done},
        {"margin": lambda done: 60 * done, "chosen": lambda done: -45 * done, "beta": 0.01},
        {"held_out": lambda done: 5 * done, "total": 60},
        {"margin": lambda done: 1.5 * done, "chosen": lambda done: done, "total": 20},
    ],
    ids=["usual", "slow", "low-beta", "held-out-lags", "short"],
)
def test_a_good_run_of_a_real_model_is_left_in_peace(loss: str, seed: int, curves: dict[str, Any]) -> None:
    """Rewards that hardly move during warm-up, chosen ones that drift below zero, and noise are nothing to speak of."""
    assert made_up(loss=loss, seed=seed, **curves).said() == {}


@pytest.mark.parametrize(
    ("kind", "curves"),
    [
        ("likelihood-displacement", {"margin": lambda done: 150 * done, "chosen": lambda done: -400 * done}),
        (
            "over-optimised",
            {"margin": lambda done: 60 * done, "held_out": lambda done: 14 * (1 - done), "spread": lambda _mean: 20.0},
        ),
        ("far-from-reference", {"kl": lambda _rng: 1.7}),
        (
            "length-exploitation",
            {"reply_tokens": lambda rng: [rng.randint(110, 128) for _ in range(8)]}
            | {f"{whose}_tokens": lambda rng: [rng.randint(40, 70) for _ in range(8)] for whose in LENGTHS[1:]},
        ),
        ("no-learning", {"margin": lambda done: 0.01 * done, "chosen": lambda done: 0.01 * done}),
        ("labels-disagree", {"held_out": lambda done: -8 * done}),
        ("diverging", {"margin": lambda done: -300 * done}),
    ],
)
def test_what_goes_wrong_at_the_scale_of_real_models(kind: str, curves: dict[str, Any]) -> None:
    """Each kind is said of a run that shows it."""
    assert kind in made_up(**curves).said()


def test_labels_without_meaning_are_told_from_a_low_learning_rate() -> None:
    """A policy that moves, and prefers nothing after half of the run, is sent back to its pairs."""
    finding = made_up(margin=lambda _done: 0.0, chosen=lambda done: -5 * done).said()["no-learning"]
    assert finding.severity == "medium"
    assert "chance explains" in finding.message
    assert "dpo-hub check" in finding.advice


def test_a_figure_that_is_none_is_told_at_once() -> None:
    """A loss or a gradient that is not a number is the end of a run, at whatever step."""
    series = made_up(total=20)
    for broken in ({"loss": math.nan}, {"grad_norm": math.inf}):
        [finding] = examine([series.steps[0], {**series.steps[1], **broken}], [], series.recipe, 20)
        assert (finding.kind, finding.severity, finding.last_step) == ("diverging", "high", 2)
        assert finding.advice == "Lower --learning-rate, for example to 1e-06."


def test_nothing_is_said_before_the_first_step() -> None:
    """A run that has not begun has no findings."""
    assert examine([], [], Recipe(), 50) == []


def test_a_point_beyond_the_steps_is_left_aside() -> None:
    """After a resume, held-out points of steps that are yet to come again say nothing."""
    series = made_up(kl=lambda _rng: 1.7)
    assert series.after(59) == []
    assert [finding.kind for finding in series.after(60)] == ["far-from-reference"]


def test_chance_is_exact() -> None:
    """Tails of fair coins are those of the binomial distribution, and few pairs never suffice."""
    assert binomial_cdf(0, 10) == pytest.approx(1 / 1024)
    assert binomial_cdf(5, 11) == pytest.approx(0.5)
    assert clearly_below_half(0.25, 64)
    assert not clearly_below_half(0.35, 64)
    assert clearly_above_half(0.75, 64)
    assert not any(clearly_below_half(0.0, count) or clearly_above_half(1.0, count) for count in range(9))
    assert fall_in_errors(0.9, 0.6, 64) > 3 > fall_in_errors(0.9, 0.75, 64)
    assert math.isfinite(fall_in_errors(1.0, 0.0, 8))


def test_a_run_is_diagnosed_from_its_folder(few_pairs: Path) -> None:
    """What is written there, nulls and all, is enough."""
    run = Run.create(read_preferences(few_pairs), Recipe.for_model())
    assert diagnose(run) == []
    run.append_metrics({**made_up(total=20).steps[0], "loss": math.nan})
    assert [finding.kind for finding in diagnose(run)] == ["diverging"]


def test_health_loads_no_torch() -> None:
    """A run's state can be told without the packages that trained it."""
    code = "import sys, dpo_hub.runs.health; sys.exit(bool({'torch', 'transformers', 'trl'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
