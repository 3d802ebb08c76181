"""Settings for a base model, models by name, and what a run of them would take."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from ...errors import ModelError, PreferencesError, RecipeError, RunError
from ...hub.calls import BROKEN
from ...recipe import DEMO_MODEL, SMOLLM2, STRENGTHS, Recipe
from ...runs.keeper import visible_devices
from ...runs.queue import run_on_device
from ...training.smollm2 import settled
from ..limits import allowed_model, require_few_epochs
from ..visitors import Visitor
from .files import find, read

MODELS = (DEMO_MODEL, SMOLLM2, "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct")
"""Offered before anybody searches: small, open to all, and with a chat template."""
FOUND = 12
PATIENCE = 600.0
"""Seconds that a look ahead may take: a large model is loaded for it."""


def pairs_in(visitor: Visitor, file: str) -> int | None:
    """How many pairs the *file* has, or None where none is chosen or it cannot be read."""
    try:
        return len(read(find(visitor.shelf, file)).pairs) if file else None
    except PreferencesError:
        return None


def settings_for(model: str, strength: str, pairs: int | None = None) -> list[Any]:
    """The values of the usual recipe for *model* and so many *pairs* at *strength*, in the order of its fields."""
    recipe = Recipe.for_model(model.strip() or DEMO_MODEL, pairs=pairs).at_strength(strength)
    return [getattr(recipe, setting.name) for setting in fields(Recipe)]


def strength_of(settings: Mapping[str, Any], pairs: int | None = None) -> str | None:
    """The name of the strength that these settings are, or None where they are people's own."""
    own = [settings[setting.name] for setting in fields(Recipe)]
    return next((name for name in STRENGTHS if settings_for(str(settings["model"]), name, pairs) == own), None)


def recipe_of(settings: Mapping[str, Any], pairs: int | None = None) -> Recipe:
    """The recipe that these *settings* are; what is not among them is as usual for so many *pairs*.

    Raises:
        RecipeError: a box is empty, a setting is out of range, or the base model is none that may be asked for.
    """
    if empty := [name for name, value in settings.items() if value is None or value == ""]:
        raise RecipeError(f"{empty[0].replace('_', ' ').capitalize()} is empty. Fill it in.")
    recipe = Recipe.for_model(pairs=pairs, **{**settings, "model": settled(allowed_model(str(settings["model"])))})
    require_few_epochs(recipe.epochs)
    return recipe


def models_named(text: str, token: str | None = None) -> list[str]:
    """Models on the Hub that write text and have *text* in their name, those most often downloaded first.

    Without an answer from the Hub, these are the models offered from the start.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token or False)
    try:
        found = api.list_models(search=text, filter="text-generation", sort="downloads", limit=FOUND)
        return [model.id for model in found] or list(MODELS)
    except (*BROKEN, HfHubHTTPError):
        return list(MODELS)


def foresee(visitor: Visitor, file: str, recipe: Recipe) -> dict[str, Any]:
    """Say what a run would take, as `dpo-hub preflight --json` does, in a process of its own.

    Raises:
        PreferencesError: there is no such file.
        ModelError: the base model cannot be loaded, or it takes too long.
        RunError: a run has the GPU.
    """
    source = find(visitor.shelf, file)
    read(source)  # within the limits of this place, which the other process does not know
    if visible_devices() and run_on_device():
        raise RunError("A run trains on this machine's GPU, and looking ahead would take its memory. Try again later.")
    options = _options(replace(recipe, force=True))
    if source.mapping:
        options += ["--map", ",".join(f"{part}={column}" for part, column in source.mapping.items())]
    command = [sys.executable, "-m", "dpo_hub", "preflight", source.where, "--json", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise ModelError("Looking ahead took too long. The run itself looks again before its first step.") from None
    if done.returncode:
        told = done.stderr.strip().rpartition("\n")[2] or "It could not be seen what the run would take."
        raise ModelError(told.replace(source.where, source.name))
    foreseen: dict[str, Any] = json.loads(done.stdout)
    return foreseen


def _options(recipe: Recipe) -> list[str]:
    """The recipe as options of the command line."""
    options = []
    for setting in fields(Recipe):
        name, value = setting.name.replace("_", "-"), getattr(recipe, setting.name)
        options += [f"--{'' if value else 'no-'}{name}"] if isinstance(value, bool) else [f"--{name}={value}"]
    return options
