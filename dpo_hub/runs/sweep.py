"""A grid of recipes, trained as ordinary runs. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, get_type_hints

from ..errors import RecipeError
from ..recipe import Recipe

MOST = 64
"""Maximum number of runs in a sweep. More would be too many to look through."""


def values_of(name: str, written: str) -> list[Any]:
    """Read the values of the setting *name*, separated by commas.

    Raises:
        RecipeError: a value cannot be read; the message names the option and the value.
    """
    kind = get_type_hints(Recipe)[name]
    found = []
    for value in (part.strip() for part in written.split(",")):
        try:
            found.append(kind(value))
        except ValueError:
            option, what = f"--{name.replace('_', '-')}", {int: "a whole number", float: "a number"}[kind]
            raise RecipeError(f"{option} has {value!r}, which is not {what}. Separate values by commas.") from None
    return found


def grid(recipe: Recipe, axes: Mapping[str, Sequence[Any]]) -> list[Recipe]:
    """Return *recipe* with each combination of the values of *axes*, without repeats; the last axis varies fastest.

    Raises:
        RecipeError: a combination is contradictory, or there are too many.
    """
    every = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    recipes = list(dict.fromkeys(replace(recipe, **settings) for settings in every))
    if len(recipes) > MOST:
        raise RecipeError(f"The grid has {len(recipes)} runs, and {MOST} is the most. Give fewer values.")
    return recipes
