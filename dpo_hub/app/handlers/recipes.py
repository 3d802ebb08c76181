"""Settings for a base model, a search for models by name, and a preview of what a run needs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from ...errors import ModelError, PreferencesError, RecipeError, RunError
from ...hub.calls import CONNECTION_ERRORS
from ...recipe import DEMO_MODEL, SMOLLM2, STRENGTHS, Recipe
from ...runs.keeper import visible_devices
from ...runs.queue import run_on_device
from ...training.smollm2 import resolve_name
from ..limits import allowed_model, require_few_epochs
from ..visitors import Visitor
from .files import find, read

MODELS = (DEMO_MODEL, SMOLLM2, "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct")
"""Offered before a search: small, not gated, and with a chat template."""
FOUND = 12
PREFLIGHT_TIMEOUT = 600.0
"""Seconds that a preview may take; a large model has to be loaded for it."""


def pairs_in(visitor: Visitor, file: str) -> int | None:
    """The number of pairs in *file*, or None if none is chosen or it cannot be read."""
    try:
        return len(read(find(visitor.shelf, file)).pairs) if file else None
    except PreferencesError:
        return None


def settings_for(model: str, strength: str, pairs: int | None = None) -> list[Any]:
    """The values of the usual recipe for *model*, *pairs* and *strength*, in the order of its fields."""
    recipe = Recipe.for_model(model.strip() or DEMO_MODEL, pairs=pairs).at_strength(strength)
    return [getattr(recipe, setting.name) for setting in fields(Recipe)]


def strength_of(settings: Mapping[str, Any], pairs: int | None = None) -> str | None:
    """The name of the strength that these settings match, or None if they are customised."""
    own = [settings[setting.name] for setting in fields(Recipe)]
    return next((name for name in STRENGTHS if settings_for(str(settings["model"]), name, pairs) == own), None)


def recipe_of(settings: Mapping[str, Any], pairs: int | None = None) -> Recipe:
    """The recipe from these *settings*; any that are missing have their usual values for *pairs*.

    Raises:
        RecipeError: a field is empty, a setting is out of range, or the base model is not allowed.
    """
    if empty := [name for name, value in settings.items() if value is None or value == ""]:
        raise RecipeError(f"{empty[0].replace('_', ' ').capitalize()} is empty. Fill it in.")
    recipe = Recipe.for_model(pairs=pairs, **{**settings, "model": resolve_name(allowed_model(str(settings["model"])))})
    require_few_epochs(recipe.epochs)
    return recipe


def models_named(text: str, token: str | None = None) -> list[str]:
    """Text-generation models on the Hub with *text* in their name, the most downloaded first.

    If nothing is found, or the Hub does not answer, these are the models offered from the start.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token or False)
    try:
        found = api.list_models(search=text, filter="text-generation", sort="downloads", limit=FOUND)
        return [model.id for model in found] or list(MODELS)
    except (*CONNECTION_ERRORS, HfHubHTTPError):
        return list(MODELS)


def run_preflight(visitor: Visitor, file: str, recipe: Recipe) -> dict[str, Any]:
    """Preview what a run needs, as `dpo-hub preflight --json` does, in a separate process.

    Raises:
        PreferencesError: there is no such file, or it cannot be read.
        ModelError: the base model cannot be loaded, or it takes too long.
        RunError: a run is using the GPU.
    """
    source = find(visitor.shelf, file)
    read(source)  # checks the limits here, which the other process does not know
    if visible_devices() and run_on_device():
        raise RunError("A run trains on this machine's GPU, and looking ahead would take its memory. Try again later.")
    options = _options(replace(recipe, force=True))
    if source.mapping:
        options += ["--map", ",".join(f"{part}={column}" for part, column in source.mapping.items())]
    command = [sys.executable, "-m", "dpo_hub", "preflight", source.where, "--json", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PREFLIGHT_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ModelError("Looking ahead took too long. The run itself looks again before its first step.") from None
    if done.returncode:
        told = done.stderr.strip().rpartition("\n")[2] or "It could not be seen what the run would take."
        raise ModelError(told.replace(source.where, source.name))
    foreseen: dict[str, Any] = json.loads(done.stdout)
    return foreseen


def _options(recipe: Recipe) -> list[str]:
    """The recipe as command-line options."""
    options = []
    for setting in fields(Recipe):
        name, value = setting.name.replace("_", "-"), getattr(recipe, setting.name)
        options += [f"--{'' if value else 'no-'}{name}"] if isinstance(value, bool) else [f"--{name}={value}"]
    return options
