"""Step 2: the base model, and how it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any

from ...errors import PreferencesError, needing_extra
from ...recipe import DEMO_MODEL, STRENGTHS, Recipe
from ..handlers import recipes, training
from ..markup import recipe as markup
from ..place import DEVICE, LATEST, QUIET, Place, goto, note, show_errors, visitor_of

with needing_extra("app"):
    import gradio as gr

ADVANCED = {
    "Learning": ("beta", "epochs", "learning_rate", "batch_size", "accumulation", "lora_r", "lora_alpha", "seed"),
    "The loss": (
        "loss",
        "sft_weight",
        "label_smoothing",
        "f_divergence",
        "f_alpha",
        "discopop_tau",
        "use_weighting",
    ),
    "Measuring": ("held_out", "evaluations", "auto_stop"),
    "Memory and time": (
        "max_length",
        "checkpoint_minutes",
        "checkpoint_steps",
        "engine",
        "activation_checkpointing",
        "load_in_4bit",
        "force",
    ),
}
"""All settings but the base model, in groups."""
HOW = {
    "gentle": "Gentle: keeps close to the base model",
    "standard": "Standard",
    "strong": "Strong: goes further from it",
}
SETTINGS = {setting.name: setting for setting in fields(Recipe)}


def build(place: Place) -> None:
    """Build the step, and add its event listeners."""
    start = Recipe.for_model()
    boxes: dict[str, Any] = {}
    with gr.Row():
        boxes["model"] = _box(SETTINGS["model"], start.model)
        strength = gr.Radio(
            [(HOW[name], name) for name in STRENGTHS],
            value="standard",
            label="How far it may go",
            info="From the base model, to be more like the chosen replies.",
            elem_id="strength",
        )
    with gr.Accordion("Advanced", open=False):
        for title, names in ADVANCED.items():
            gr.HTML(f'<h3 class="group">{title}</h3>')
            with gr.Row(elem_classes="settings"):
                boxes |= {name: _box(SETTINGS[name], getattr(start, name)) for name in names}
    with gr.Row():
        look = gr.Button("What will it take?", elem_id="look-ahead")
        train = gr.Button("Train", variant="primary", elem_id="train")
    ahead = gr.HTML(elem_id="ahead")
    kept = place.settings

    recipe = [boxes[name] for name in SETTINGS]
    asked = [place.file, strength, kept, *recipe]
    chosen = [place.file, boxes["model"], strength, kept]
    boxes["model"].key_up(_search, None, boxes["model"], **LATEST)
    for trigger, do in ((boxes["model"].change, _settings), (strength.input, _strengthened)):
        trigger(do, chosen, [*recipe[1:], kept], **QUIET)
    for name, box in boxes.items():
        if name != "model":
            box.input(_keep, [place.file, *recipe], [strength, kept], **QUIET)
    place.file_changed.then(lambda: "", None, ahead, **LATEST)
    place.file_changed.then(_for_file, [place.file, kept], [*recipe, strength, kept], **LATEST)
    look.click(
        lambda: note("Loading the model, and taking two steps to see what they need …"), None, ahead, **QUIET
    ).then(_look_ahead, asked, ahead, **DEVICE).failure(lambda: "", None, ahead, **QUIET)
    train.click(_start, asked, [place.run, place.tabs], **{**QUIET, "concurrency_limit": 1})


def _box(setting: Field[Any], value: Any) -> Any:
    """The input for one field of the recipe, by its type."""
    label = setting.name.replace("_", " ").capitalize().replace("Lora", "LoRA").replace("Sft", "SFT")
    look: dict[str, Any] = {
        "label": label,
        "info": setting.metadata["help"],
        "elem_id": setting.name,
        "min_width": 200,
        "elem_classes": "setting",
    }
    if setting.name == "model":
        look |= {
            "label": "Base model",
            "info": "The demo's is built in. Type to search the Hub, or name a folder or a GGUF file here.",
        }
        return gr.Dropdown(list(recipes.MODELS), value=value, allow_custom_value=True, filterable=True, **look)
    if choices := setting.metadata["choices"]:
        return gr.Dropdown(list(choices), value=value, **look)
    if setting.type == "bool":
        return gr.Checkbox(value, **look)
    return gr.Number(value, precision=0 if setting.type == "int" else None, **look)


@show_errors
def _search(key: gr.KeyUpData, request: gr.Request) -> gr.Dropdown:
    return gr.Dropdown(recipes.models_named(str(key.input_value or ""), visitor_of(request).token))


@show_errors
def _settings(
    file: str, model: str | None, strength: str | None, kept: dict[str, Any] | None, request: gr.Request
) -> list[Any]:
    """The usual settings of another model; if the browser has kept some for this model, they stay."""
    if kept and kept.get("model") == model:
        return [gr.skip()] * len(SETTINGS)
    settings: list[Any] = _strengthened(file, model, strength, kept, request)
    return settings


@show_errors
def _strengthened(
    file: str, model: str | None, strength: str | None, _kept: dict[str, Any] | None, request: gr.Request
) -> list[Any]:
    values = recipes.settings_for(model or "", strength or "standard", recipes.pairs_in(visitor_of(request), file))
    return [*values[1:], _to_keep(values, strength or "standard")]


@show_errors
def _for_file(file: str, kept: dict[str, Any] | None, request: gr.Request) -> list[Any]:
    """The settings that the browser has kept; those of a named strength are adapted to the pairs of this file."""
    names = {*SETTINGS, "strength"}
    if not kept or kept.keys() != names or kept["strength"] not in (None, *STRENGTHS):  # none, or another version's
        kept = {"model": DEMO_MODEL, "strength": "standard"}
    strength, pairs = kept["strength"], recipes.pairs_in(visitor_of(request), file)
    values = recipes.settings_for(kept["model"], strength, pairs) if strength else [kept[name] for name in SETTINGS]
    return [*values, strength, _to_keep(values, strength)]


@show_errors
def _keep(file: str, request: gr.Request, *settings: Any) -> tuple[str | None, dict[str, Any]]:
    """Keep the settings in the browser, so that a reload restores them, and select the strength that they match."""
    named = dict(zip(SETTINGS, settings, strict=True))
    strength = recipes.strength_of(named, recipes.pairs_in(visitor_of(request), file))
    return strength, _to_keep(settings, strength)


def _to_keep(values: Sequence[Any], strength: str | None) -> dict[str, Any]:
    """What the browser keeps: the settings by name, and the strength that they match, if any."""
    return {**dict(zip(SETTINGS, values, strict=True)), "strength": strength}


@show_errors
def _look_ahead(file: str, request: gr.Request, *shown: Any) -> str:
    recipe = recipes.recipe_of(_chosen_settings(recipes.pairs_in(visitor_of(request), file), *shown))
    return markup.preflight(recipes.run_preflight(visitor_of(request), _chosen(file), recipe))


@show_errors
def _start(file: str, request: gr.Request, *shown: Any) -> tuple[Any, ...]:
    pairs = recipes.pairs_in(visitor_of(request), file)
    return training.start_training(visitor_of(request), _chosen(file), _chosen_settings(pairs, *shown)), goto("train")


def _chosen_settings(
    pairs: int | None, strength: str | None, kept: dict[str, Any] | None, *settings: Any
) -> dict[str, Any]:
    """The settings by name; if the model was changed and its settings have not arrived yet, its usual ones are used."""
    model = str(settings[0] or "").strip()
    if model != str(kept["model"] if kept else DEMO_MODEL).strip():
        settings = (model, *recipes.settings_for(model, strength or "standard", pairs)[1:])
    return dict(zip(SETTINGS, settings, strict=True))


def _chosen(file: str) -> str:
    if not file:
        raise PreferencesError("Choose a file first: yours, or a demo file.")
    return file
