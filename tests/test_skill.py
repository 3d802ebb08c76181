"""What agents are told agrees with the command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

from dpo_hub.cli import cli

SKILL = Path(__file__).parent.parent / "skills" / "dpo-hub" / "SKILL.md"
TEXT = SKILL.read_text(encoding="utf-8")
CODE = [
    line
    for block in re.findall(r"```bash\n(.*?)```|`([^`\n]+)`", TEXT, re.DOTALL)
    for line in "".join(block).split("\n")
]
SPANS = [span for span in CODE if span.startswith("dpo-hub ")]


def options(of: Any) -> Iterator[str]:
    """The options of a command, and of those below it."""
    for parameter in of.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for below in getattr(of, "commands", {}).values():
        yield from options(below)


def test_the_skill_has_commands() -> None:
    """Every stage is shown, so that what is tested below is there."""
    stages = {span.split()[1] for span in SPANS}
    assert {"check", "preflight", "train", "status", "chat", "publish", "space"} <= stages


@pytest.mark.parametrize("span", SPANS)
def test_a_command_that_is_shown_can_be_given(span: str) -> None:
    """The command line takes it as it stands: the command, what it needs, its options and their values."""
    found, words = typer.main.get_command(cli), shlex.split(span)[1:]
    while commands := getattr(found, "commands", None):
        found = commands[words.pop(0)]
    found.make_context("", words)


def test_an_option_that_is_named_alone_exists() -> None:
    """Some command has each."""
    known = set(options(typer.main.get_command(cli)))
    named = [span.split()[0] for span in CODE if span.startswith("--")]
    assert named
    assert [name for name in named if name not in known] == []


def test_the_front_matter_is_what_agents_look_for() -> None:
    """The name is the folder's, in lower case, and the description says what it is for and when, within its limits."""
    card = yaml.safe_load(TEXT.split("---\n")[1])
    assert card["name"] == SKILL.parent.name
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", card["name"])
    assert len(card["description"]) <= 1024
    assert "Use when" in card["description"]
