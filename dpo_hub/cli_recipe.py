"""What several commands ask for: a preference file, which column is which, and the recipe's settings."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

import typer

Mapping = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="PART=COLUMN,…", help="Say which column is which, as in prompt=ask,chosen=good."),
]
Source = Annotated[str, typer.Argument(metavar="FILE", help="A preference file, or a Hub dataset: OWNER/NAME:SPLIT.")]


def mapping_of(written: list[str] | None) -> dict[str, str]:
    from .preferences.layouts.mapping import parse_mapping

    return parse_mapping(",".join(written)) if written else {}


def meant(model: str | None) -> str | None:
    """The base model that --model means; where that is ours by the name of `smollm2`, fetch it now, in plain sight."""
    from .demo import smollm2
    from .recipe import SMOLLM2

    settled = smollm2.settled(model) if model else None
    if settled == SMOLLM2:
        smollm2.folder()
    return settled


def with_recipe_options(command: Callable[..., None], *, listed: Collection[str] = ()) -> Callable[..., None]:
    """Give *command* an option for each field of `Recipe`, in the place of its parameter `settings`.

    Those of the fields *listed* take several values, separated by commas, as one text.
    """
    from .recipe import Recipe

    hints = get_type_hints(Recipe)

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        settings = {setting.name: values.pop(setting.name) for setting in fields(Recipe)}
        command(**values, settings=settings)

    options = [
        inspect.Parameter(
            setting.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None if setting.name in listed else hints[setting.name] | None,
                typer.Option(
                    help=setting.metadata["help"],
                    show_default=False,
                    metavar="VALUE,…" if setting.name in listed else None,
                ),
            ],
        )
        for setting in fields(Recipe)
    ]
    own = inspect.signature(command, eval_str=True).parameters.values()
    kept = [parameter for parameter in own if parameter.name != "settings"]
    wrapped.__signature__ = inspect.Signature([*kept, *options])  # type: ignore[attr-defined]
    return wrapped
