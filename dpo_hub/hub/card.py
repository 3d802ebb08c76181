"""The model card of a run. Knows nothing of the Hub's API.

Prompts, replies and file names are text of others: they stand in code spans and fences that they cannot close, and none
of them reaches the metadata.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .. import __version__
from ..recipe import DEMO_MODEL, Recipe
from ..run import Run

LOCAL_FOLDER = "a local folder"
"""What the world is told of a base model that lies on the disk of whoever trained."""

ADAPTER_LINE = 'adapter = "adapter"'
"""Where the card's code finds the adapter: beside the card, until publishing puts the repository's name here."""

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")
_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def render_card(run: Run) -> str:
    """Render the card of a run that has its evaluation and samples: metadata for the Hub, then Markdown for people."""
    recipe, report = run.recipe, run.report
    body = (
        _environment()
        .get_template("card.md.jinja")
        .render(
            base=public_base(recipe.model),
            is_demo=recipe.model == DEMO_MODEL,
            is_local=public_base(recipe.model) == LOCAL_FOLDER,
            adapter_line=ADAPTER_LINE,
            recipe=recipe,
            settings=list(_settings(recipe)),
            report=report,
            evaluation=run.evaluation,
            samples=run.samples,
            versions=list(_versions()),
        )
    )
    return f"{front_matter(recipe)}\n{body}"


def front_matter(recipe: Recipe) -> str:
    """The metadata that the card of a run of *recipe* begins with."""
    return f"---\n{_metadata(recipe).to_yaml()}\n---\n"


def public_base(model: str) -> str:
    """Name the base model without giving away a path: `demo`, a Hub id, or `LOCAL_FOLDER`."""
    if model == DEMO_MODEL or (_HUB_ID.fullmatch(model) and not Path(model).exists()):
        return model
    return LOCAL_FOLDER


def code_span(text: Any) -> str:
    """Return *text* as a code span of one line, in which no Markdown and no HTML is read."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split()) or "(empty)"
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def cell(markdown: str) -> str:
    """Return *markdown* with its pipes escaped, which would end a table's cell even in a code span."""
    return markdown.replace("|", r"\|")


def fenced(text: str) -> str:
    """Return *text* as a code block whose fence is longer than any run of backticks in it."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML: `code_span` and `fenced` keep text inert
    )
    environment.filters.update(code_span=code_span, cell=cell, fenced=fenced)
    return environment


def _metadata(recipe: Recipe) -> ModelCardData:
    base = public_base(recipe.model)
    on_hub = base not in (DEMO_MODEL, LOCAL_FOLDER)
    return ModelCardData(
        library_name="peft",
        base_model=base if on_hub else None,
        base_model_relation="adapter" if on_hub else None,
        pipeline_tag="text-generation",
        tags=["dpo", "lora", "trl", "dpo-hub"],
    )


def _settings(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """Each setting as (name, value, meaning)."""
    for setting in fields(recipe):
        value = getattr(recipe, setting.name)
        yield setting.name, public_base(value) if setting.name == "model" else value, setting.metadata["help"]


def _versions() -> Iterator[tuple[str, str]]:
    yield "Python", platform.python_version()
    yield "dpo_hub", __version__
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue
