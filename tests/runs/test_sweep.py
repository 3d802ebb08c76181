"""Grids of recipes."""

from __future__ import annotations

import pytest

from dpo_hub.errors import RecipeError
from dpo_hub.recipe import Recipe
from dpo_hub.runs.sweep import grid, values_of


def test_a_grid_has_each_combination_once() -> None:
    """Values given twice make one run, and the rest of the recipe stays."""
    found = grid(Recipe(seed=3), {"beta": [0.1, 0.3, 0.1], "loss": ["sigmoid", "ipo"]})
    assert [(r.beta, r.loss) for r in found] == [(0.1, "sigmoid"), (0.1, "ipo"), (0.3, "sigmoid"), (0.3, "ipo")]
    assert {recipe.seed for recipe in found} == {3}


def test_values_are_read_by_their_setting() -> None:
    """Numbers, whole numbers and names; what is none is named with its option."""
    assert values_of("beta", "0.1, 1") == [0.1, 1.0]
    assert values_of("lora_r", "4,8") == [4, 8]
    assert values_of("loss", "ipo,hinge") == ["ipo", "hinge"]
    with pytest.raises(RecipeError, match="--lora-r has 'x', which is not a whole number"):
        values_of("lora_r", "4,x")


def test_a_grid_too_large_is_refused() -> None:
    """So many runs were hardly meant."""
    with pytest.raises(RecipeError, match="The grid has 65 runs, and 64 is the most"):
        grid(Recipe(), {"beta": [number / 100 for number in range(1, 66)]})
