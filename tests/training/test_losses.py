"""Every loss of TRL's, from the recipe to the steps of a run."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from trl import DPOTrainer

from dpo_hub.errors import RecipeError
from dpo_hub.preferences import read_preferences
from dpo_hub.recipe import DIFFERENCES, LOSS_TYPES, Recipe
from dpo_hub.runs.run import Run
from dpo_hub.training.train import train

NEEDS: dict[str, dict[str, float]] = {
    "exo_pair": {"label_smoothing": 0.001},
    "robust": {"label_smoothing": 0.1},
    "sft": {"sft_weight": 0.0},
}


def test_the_losses_are_those_of_trl() -> None:
    """A loss that TRL adds, removes or opens to divergences shows here, and then belongs in the recipe."""
    loss = inspect.getsource(DPOTrainer._compute_loss)
    assert set(re.findall(r'loss_type == "(\w+)"', loss)) == set(LOSS_TYPES)
    (told,) = re.findall(r"f_divergence_loss_types = \{(.*?)\}", inspect.getsource(DPOTrainer.__init__))
    assert set(re.findall(r'"(\w+)"', told)) == set(DIFFERENCES)


QUICK = ("sigmoid", "bco_pair")
"""The usual one, and one with a running mean, which a resumed run must have kept."""


@pytest.mark.parametrize(
    "loss", [pytest.param(loss, marks=[] if loss in QUICK else pytest.mark.full) for loss in LOSS_TYPES]
)
def test_both_engines_agree(few_pairs: Path, loss: str) -> None:
    """Two steps with each loss, the second after an update, come to the same with plain TRL."""
    told = []
    for engine in ("shared-prefix", "trl"):
        settings: dict[str, Any] = {"loss": loss, "epochs": 1, "evaluations": 0, "learning_rate": 1e-3, "beta": 0.1}
        run = Run.create(read_preferences(few_pairs), Recipe.for_model(**settings | NEEDS.get(loss, {}), engine=engine))
        train(run)
        told.append([step["loss"] for step in run.metrics])
    assert len(told[0]) == 2
    assert told[0] == pytest.approx(told[1], abs=1e-5, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loss": "exo_pair"}, "exo_pair needs label_smoothing above 0; 0.001 is usual"),
        ({"loss": "robust"}, "robust needs label_smoothing above 0; 0.1 is usual"),
        ({"label_smoothing": 0.1}, "the loss sigmoid has none"),
        ({"loss": "bco_pair", "f_divergence": "forward_kl"}, "bco_pair knows reverse_kl only"),
        ({"f_alpha": 0.3}, "Make that alpha_divergence"),
        ({"discopop_tau": 0.1}, "Make that discopop"),
        ({"loss": "aot", "use_weighting": True}, "takes them apart"),
        ({"use_weighting": True}, "Make sft_weight 0"),
        ({"loss": "sft"}, "Make sft_weight 0"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any], told: str) -> None:
    """What TRL would refuse, ignore, or trip over is said before it starts."""
    with pytest.raises(RecipeError, match=told):
        Recipe(**settings)


def test_a_loss_that_sorts_keeps_its_batch() -> None:
    """Where memory or devices ask for smaller batches, such a loss would become another."""
    recipe = Recipe(loss="aot", batch_size=8, accumulation=2)
    less = recipe.with_less_memory()
    assert less
    assert (less.batch_size, less.activation_checkpointing) == (8, True)
    assert less.with_less_memory() is None
    assert (recipe.per_process(2).batch_size, recipe.per_process(2).accumulation) == (8, 1)
    with pytest.raises(RecipeError, match="Make accumulation a multiple of 4"):
        recipe.per_process(4)


def test_a_recipe_of_an_earlier_version_loads() -> None:
    """Settings that it had not yet are as TRL has them."""
    assert Recipe.from_json('{"beta": 0.3, "loss": "ipo"}') == Recipe(beta=0.3, loss="ipo")
