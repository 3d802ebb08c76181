from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

import dpo_hub
from dpo_hub.errors import RecipeError
from dpo_hub.recipe import DEMO_RECIPE, HIGHEST_RATE, PASS, UPDATES, Recipe


def test_json_round_trip() -> None:
    """A recipe written and read again is the same recipe."""
    recipe = Recipe.for_model("owner/name", beta=0.3, loss="ipo")
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_settings_that_are_none_keep_the_defaults() -> None:
    """Options that were not given leave the model's safe recipe as it is."""
    assert Recipe.for_model(beta=None) == DEMO_RECIPE
    assert Recipe.for_model("owner/name").learning_rate < DEMO_RECIPE.learning_rate


@pytest.mark.parametrize("pairs", [20, 60, 238, 500, 1100, 5_000, 100_000])
def test_a_real_model_learns_faster_the_fewer_updates_there_are(pairs: int) -> None:
    """Few pairs are seen two at a time, up to three times, and at the highest rate; thousands once, at a lower one."""
    recipe, fewer = Recipe.for_model("owner/name", pairs=pairs), Recipe.for_model("owner/name", pairs=pairs // 2)
    assert 2 <= fewer.batch_size <= recipe.batch_size <= 8
    assert 1 <= recipe.epochs <= fewer.epochs <= 3
    updates = [one.epochs * count / one.batch_size for one, count in ((fewer, pairs // 2), (recipe, pairs))]
    slower, faster = (recipe, fewer) if updates[1] >= updates[0] else (fewer, recipe)
    assert 1e-6 < slower.learning_rate <= faster.learning_rate <= HIGHEST_RATE
    assert recipe.epochs == 1 or recipe.epochs * pairs * 0.9 / recipe.batch_size < 2 * UPDATES
    assert recipe.batch_size == 2 or pairs * 0.9 / recipe.batch_size >= PASS


def test_what_is_asked_for_stays_whatever_the_pairs() -> None:
    """Neither a rate nor epochs that somebody named are changed, nor anything of the embedded model's recipe."""
    assert Recipe.for_model("owner/name", pairs=60, learning_rate=2e-6).learning_rate == 2e-6
    assert Recipe.for_model("owner/name", pairs=60, epochs=1.0).epochs == 1
    assert Recipe.for_model("owner/name", pairs=60, batch_size=16).batch_size == 16
    assert Recipe.for_model("owner/name", pairs=60, accumulation=4).effective_batch_size == 32
    assert Recipe.for_model(pairs=60) == DEMO_RECIPE


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"beta": 0}, "beta is 0; it must lie between 0.0001 and 10"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"lora_r": -1}, "lora_r is -1"),
        ({"auto_stop": "yes"}, "auto_stop is 'yes'; it must be true or false"),
        ({"auto_stop": True, "evaluations": 0}, "auto_stop decides by interim evaluations, and evaluations is 0"),
        ({"loss": "nonsense"}, "loss is 'nonsense'; it must be one of sigmoid"),
    ],
)
def test_a_bad_setting_is_named_with_its_range(settings: dict[str, float], told: str) -> None:
    """The message has the setting, the value and what is allowed."""
    with pytest.raises(RecipeError, match=told):
        Recipe(**settings)


def test_every_setting_is_read_somewhere() -> None:
    """No option is accepted and then ignored."""
    code = "".join(
        path.read_text(encoding="utf-8")
        for path in Path(dpo_hub.__file__).parent.rglob("*.py")
        if path.name != "recipe.py"
    )
    unread = [setting.name for setting in fields(Recipe) if f"recipe.{setting.name}" not in code]
    assert unread == []
