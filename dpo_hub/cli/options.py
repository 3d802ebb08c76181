"""Options shared by several commands: the preference file, the column mapping and the recipe's settings."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

import typer

from ..preferences.layouts.mapping import parse_mapping
from ..recipe import SMOLLM2, Recipe
from ..training import smollm2

Mapping = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="PART=COLUMN,…", help="Name the columns, as in prompt=ask,chosen=good."),
]
Source = Annotated[str, typer.Argument(metavar="FILE", help="A preference file, or a Hub dataset: OWNER/NAME:SPLIT.")]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Token = Annotated[str | None, typer.Option(help="Hub token; by default your login.", show_default=False)]
RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id or its first characters, 'last', or the run's folder.")
]
Detach = Annotated[bool, typer.Option("--detach", help="Start it in the background and return at once.")]
KeepGoing = Annotated[
    int,
    typer.Option(metavar="TIMES", help="Resume it automatically, up to this many times, if its process dies.", min=0),
]


def mapping_of(written: list[str] | None) -> dict[str, str]:

    return parse_mapping(",".join(written)) if written else {}


def resolve_model(model: str | None) -> str | None:
    """Return the base model that --model means; if it is the built-in `smollm2`, download it now, visibly."""
    settled = smollm2.resolve_name(model) if model else None
    if settled == SMOLLM2:
        smollm2.folder()
    return settled


def with_recipe_options(command: Callable[..., None], *, listed: Collection[str] = ()) -> Callable[..., None]:
    """Give *command* an option for each field of `Recipe`, in place of its parameter `settings`.

    The options for the fields *listed* take several values as one text, separated by commas.
    """
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
