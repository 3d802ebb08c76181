"""The commands and options people have in their scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from dpo_hub.cli import cli

KNOWN = Path(__file__).with_name("commands.txt")


def commands(group: Any, name: str = "dpo-hub") -> Iterator[str]:
    """A line for each command, argument and option: its type, its default, and whether it must be given."""
    for word, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {word}")
            continue
        yield f"{name} {word}"
        for parameter in command.params:
            kind = parameter.type_descriptor.annotation
            needed = "required" if parameter.required else f"default {parameter.default!r}"
            names = ", ".join((*parameter.opts, *parameter.secondary_opts))
            yield f"    {names}: {getattr(kind, '__name__', kind)}, {needed}"


def test_commands_and_options_stay() -> None:
    """People rely on what is there. Whoever adds an option, or takes one away, writes it in the list too."""
    assert "\n".join(commands(typer.main.get_command(cli))) + "\n" == KNOWN.read_text(encoding="utf-8")
