"""The commands for your own Space: create, update, read its log, pause, restart. Does not import torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import typer

from ..errors import RecipeError
from .options import Token

cli = typer.Typer(help="The app on a Hugging Face Space.", no_args_is_help=True)

HOUR = 3600
NEVER = -1

SpaceName = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The Space on the Hub.")]


@cli.command()
def create(  # noqa: PLR0913  # one parameter per option
    space: SpaceName,
    *,
    public: Annotated[bool, typer.Option("--public/--private", help="Who can open it and see every run.")] = False,
    hardware: Annotated[
        str, typer.Option(metavar="FLAVOR", help="A Hugging Face machine, such as l4x1; cpu-basic needs a PRO account.")
    ] = "cpu-basic",
    sleep: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS",
            help=f"Give paid hardware back after so long without a visitor; {NEVER} for never. By default {HOUR}.",
            min=NEVER,
            show_default=False,
        ),
    ] = None,
    secrets: Annotated[
        list[str] | None,
        typer.Option("--secret", metavar="NAME", help="Pass this environment variable on as a secret."),
    ] = None,
    variables: Annotated[
        list[str] | None,
        typer.Option("--variable", metavar="NAME=VALUE", help="Set this variable on the Space; anyone can read it."),
    ] = None,
    volume: Annotated[
        bool,
        typer.Option("--volume/--no-volume", help="Keep runs in a private bucket, so that they survive a restart."),
    ] = True,
    token: Token = None,
) -> None:
    """Create a Space with the app on it."""
    from ..hub.account import client, price
    from ..hub.space import FREE, Settings
    from ..hub.space import create as create_space

    if sleep is not None and hardware == FREE:
        raise RecipeError(
            f"--sleep is for paid hardware: {FREE} sleeps after two days. Add --hardware, or leave it out."
        )
    api = client(token)
    idle = None if hardware == FREE else HOUR if sleep is None else sleep
    settings = Settings(
        private=not public,
        hardware=hardware,
        sleep=idle,
        secrets=_secrets(secrets or ()),
        variables=_variables(variables or ()),
        keeps_runs=volume,
    )
    if idle is not None:
        machine = price(hardware, api, of_spaces=True)
        print(f"{hardware} ({machine.accelerator or 'CPU'}) costs ${machine.hourly:.2f} an hour. {_sleeps(idle)}")
    print(f"Made: {create_space(api, space, settings)}")
    print(f"It is built now, which takes some minutes. Follow that:  dpo-hub space logs {space} --build -f")


def _sleeps(idle: int) -> str:
    if idle == NEVER:
        return "It never sleeps: pause it when nobody needs it."
    return f"It sleeps after {idle} seconds without a visitor, which also stops a run that is training."


def _secrets(names: Sequence[str]) -> dict[str, str]:
    """Read secrets from environment variables, so that none appears on a command line."""
    if any(not name.isidentifier() for name in names):
        raise RecipeError("--secret takes the name of an environment variable, as in --secret HF_TOKEN, and no value.")
    if missing := [name for name in names if not os.environ.get(name)]:
        raise RecipeError(
            f"There is nothing in the environment variable {missing[0]} to hand on. Set it: "
            f"read -rs {missing[0]} && export {missing[0]}"
        )
    return {name: os.environ[name] for name in names}


def _variables(written: Sequence[str]) -> dict[str, str]:
    split = [text.partition("=") for text in written]
    for name, equals, _ in split:
        if not (name.isidentifier() and equals):
            raise RecipeError(f"--variable {name!r} is no NAME=VALUE. Write it as in --variable HF_HUB_OFFLINE=0.")
    return {name: value for name, _, value in split}


@cli.command()
def update(space: SpaceName, *, token: Token = None) -> None:
    """Update the app on a Space to this version."""
    from ..hub.account import client
    from ..hub.space import update as update_space

    print(f"Up to date: {update_space(client(token), space)}")


@cli.command()
def logs(
    space: SpaceName,
    *,
    build: Annotated[bool, typer.Option("--build", help="Show the build log instead of the app's log.")] = False,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Keep printing as long as there is more.")] = False,
    token: Token = None,
) -> None:
    """Print the log of the app on a Space."""
    from ..hub.account import client
    from ..hub.space import logs as space_logs

    for line in space_logs(client(token), space, build=build, follow=follow):
        print(line, end="", flush=True)


@cli.command()
def pause(space: SpaceName, *, token: Token = None) -> None:
    """Pause a Space, so that it costs nothing."""
    from ..hub.account import client
    from ..hub.space import pause as pause_space

    pause_space(client(token), space)
    print(f"{space} is paused and costs nothing. Start it again:  dpo-hub space restart {space}")


@cli.command()
def restart(space: SpaceName, *, token: Token = None) -> None:
    """Start a Space again."""
    from ..hub.account import client
    from ..hub.space import restart as restart_space

    restart_space(client(token), space)
    print(f"{space} starts again. Follow it:  dpo-hub space logs {space} -f")
