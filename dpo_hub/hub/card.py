"""The model card of a run, and what publishing adds to it. Knows nothing of the Hub's API.

Prompts, replies, file names and columns are other people's text: they go into code spans and fences that they cannot
close, and none of them reaches the metadata except the name of a dataset on the Hub.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from yaml import YAMLError  # type: ignore[import-untyped]

from ..errors import PublishError
from ..preferences.files import parse_hub_id
from ..recipe import BY_PAIRS, DEMO_MODEL, Recipe
from ..runs.base_model import LOCAL_FILE, LOCAL_FOLDER, describe_origin, is_on_hub, public_base, public_name
from ..runs.headline import headline_of
from ..runs.run import Run
from .curves import CURVES

LOCAL_PATH = "path/to/the/base/model"
"""Placeholder in the card's code for a base model that is only on the machine that trained."""
LOCAL_PATHS = {LOCAL_FOLDER: LOCAL_PATH, LOCAL_FILE: f"{LOCAL_PATH}.gguf"}
"""The same, on the command line."""
MODEL_NAME = "lora-adapter"
"""The model's name in the metadata until publishing replaces it with the repository's name."""

ADAPTER_LINE = 'adapter = "adapter"'
"""Where the card's code finds the adapter: beside the card, until publishing puts in the repository's name."""
SPLIT_LINE = "No prompt is in both."
"""Publishing adds the location of the pairs after this line."""
LICENCE_LINE = "- The base model's licence and limits hold for the adapter too."
NO_LICENCE_LINE = (
    "- The base model's licence, which is not known here, and its limits hold for the adapter too: look the licence up "
    "before you use this."
)
"""Replaces `LICENCE_LINE` when publishing finds no licence."""

MEASURES = {
    "reward_accuracy": "Reward accuracy",
    "margin": "Mean margin",
    "kl": "KL from the reference, in nats a token",
    "judge_win_rate": "Win rate by a judge model",
    "win_rate": "Win rate against the reference",
}
COURSE_ROWS = 10
"""The most interim evaluations that the card lists; the curves show them all."""

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What no text file should contain: control characters other than tab and line feed, and lone surrogates."""


def render_card(run: Run) -> str:
    """Render the card of a run that has its evaluation and samples: metadata for the Hub, then Markdown for readers."""
    recipe, report, base = run.recipe, run.report, public_base(run.recipe.model)
    dataset, split = parse_hub_id(report["source"]) or (None, None)
    source = public_source(report["source"])
    measured = _measured(run)
    body = (
        environment()
        .get_template("card.md.jinja")
        .render(
            base=base,
            headline=headline_of(run, name="RUN").sentence,
            origin=origin(report),
            file=report.get("base", {}).get("file"),
            is_demo=base == DEMO_MODEL,
            is_local=base in LOCAL_PATHS,
            local_path=LOCAL_PATH,
            lines={"adapter": ADAPTER_LINE, "split": SPLIT_LINE, "licence": LICENCE_LINE},
            recipe=recipe,
            settings=list(_settings(recipe)),
            command=_command(recipe, source, report.get("continues")),
            report={"findings": [], "versions": {}, "auto_stop": None, "continues": None} | report,
            source=source,
            dataset=dataset,
            split=split,
            evaluation=run.evaluation,
            measured=measured,
            measures=MEASURES,
            curves=CURVES if (run.path / CURVES).is_file() else None,
            course=_course(run.evaluations),
            samples=run.samples,
        )
    )
    return f"{front_matter(recipe, dataset=dataset, results=_results(measured, run.evaluation, dataset))}\n{body}"


def front_matter(recipe: Recipe, *, dataset: str | None = None, results: Sequence[EvalResult] = ()) -> str:
    """The metadata at the top of the card for a run of *recipe*."""
    base = public_base(recipe.model)
    on_hub = is_on_hub(base)
    data = ModelCardData(
        library_name="peft",
        base_model=base if on_hub else None,
        base_model_relation="adapter" if on_hub else None,
        pipeline_tag="text-generation",
        tags=["dpo", "lora", "trl", "dpo-hub"],
        datasets=[dataset] if dataset else None,
        model_name=MODEL_NAME if results else None,
        eval_results=list(results) or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def adapt_card(
    card: str,
    *,
    repo_id: str,
    license: str | None = None,
    language: list[str] | None = None,
    datasets: Sequence[str] = (),
    **more: str,
) -> str:
    """Adapt the *card* of a run to its repository *repo_id*; any other edits in it stay.

    Args:
        card: the text of the run's README.md, edited by hand or not.
        repo_id: `owner/name`.
        license: the base model's, as the Hub spells it; used if the card has none.
        language: language codes; used if the card has none.
        datasets: where the pairs are on the Hub.
        more: what belongs to *license*: `license_name` and `license_link`.

    Raises:
        PublishError: the card's metadata cannot be read.
    """
    try:
        edited = ModelCard(card.lstrip("\ufeff"))
    except (ValueError, TypeError, YAMLError) as error:
        raise PublishError(
            f"The metadata between the lines --- at the top of README.md cannot be read: {error} Mend it there."
        ) from error
    data: Any = edited.data
    inherited = {} if data.license else {"license": license, **more}
    for name, value in {"language": language, **inherited}.items():
        if value and not data.get(name):
            data[name] = value
    had = [data.datasets] if isinstance(data.datasets, str) else data.datasets or []
    data.datasets = list(dict.fromkeys([*had, *datasets])) or None
    if data.model_name == MODEL_NAME:
        data.model_name = repo_id.rpartition("/")[2]
    edited.text = _replaced(edited.text, ADAPTER_LINE, f'adapter = "{repo_id}"')
    if datasets:
        links = ", ".join(f"[{name}](https://huggingface.co/datasets/{name})" for name in datasets)
        edited.text = _replaced(edited.text, SPLIT_LINE, f"{SPLIT_LINE} The pairs are published: {links}.")
    if not data.license:
        edited.text = _replaced(edited.text, LICENCE_LINE, NO_LICENCE_LINE, last=True)
    return str(edited)


def _replaced(text: str, line: str, other: str, *, last: bool = False) -> str:
    """*text* with *other* in place of its first or last *line*; lines between the two may be other people's text."""
    found = [match.span() for match in re.finditer(f"^{re.escape(line)}$", text, re.MULTILINE)]
    if not found:
        return text
    start, end = found[-1 if last else 0]
    return f"{text[:start]}{other}{text[end:]}"


def origin(report: Mapping[str, Any]) -> str:
    """Say in Markdown which file the base model was read from, and how; empty if it was used as it is."""
    found = report.get("base")
    return describe_origin({**found, "file": code_span(found["file"])}) if found else ""


def public_source(source: str) -> str:
    """Name the source of the pairs without revealing a folder: a dataset on the Hub, or a file's name."""
    return source if parse_hub_id(source) else re.split(r"[/\\]", source)[-1]


def code_span(text: Any) -> str:
    """Return *text* as a code span on one line, in which neither Markdown nor HTML is interpreted."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split()) or "(empty)"
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def cell(markdown: str) -> str:
    """Return *markdown* with its pipes escaped: they would end a table cell even in a code span."""
    return markdown.replace("|", r"\|")


def fenced(text: str, language: str = "text") -> str:
    """Return *text* as a code block whose fence is longer than any run of backticks in it."""
    seen = _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))
    fence = "`" * max(3, _longest_run(seen) + 1)
    return f"{fence}{language}\n{seen}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)


@cache
def environment() -> Environment:
    """The Jinja environment for the cards, with the filters `code_span`, `cell` and `fenced`."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML: `code_span` and `fenced` keep text inert
    )
    made.filters.update(code_span=code_span, cell=cell, fenced=fenced)
    return made


def _measured(run: Run) -> dict[str, float]:
    """The finite measurements of the adapter as saved, in the order of `MEASURES`."""
    settled = run.report.get("auto_stop") or {"kept": run.last_metrics.get("step")}
    looks = {point["step"]: point["kl"] for point in run.evaluations}
    figures = {"kl": looks.get(settled["kept"], math.nan)} | run.evaluation
    return {name: figures[name] for name in MEASURES if math.isfinite(figures.get(name, math.nan))}


def _results(measured: Mapping[str, float], evaluation: Mapping[str, float], dataset: str | None) -> list[EvalResult]:
    interval = {key: evaluation[key] for key in ("win_rate_low", "win_rate_high", "comparisons") if key in evaluation}
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=dataset or "preferences",
            dataset_name="Held-out pairs",
            metric_type=name,
            metric_name=MEASURES[name],
            metric_value=round(value, 4),
            metric_args=interval if name == "win_rate" else None,
        )
        for name, value in measured.items()
    ]


def _course(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """At most `COURSE_ROWS` of the *points*, evenly spaced, including the last."""
    every = -(-len(points) // COURSE_ROWS) or 1
    return list(points[::-1][::every][::-1])


def _settings(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """Each setting as (name, value, meaning)."""
    for setting in fields(recipe):
        value = getattr(recipe, setting.name)
        yield setting.name, public_name(value) if setting.name == "model" else value, setting.metadata["help"]


def _command(recipe: Recipe, source: str, previous: str | None) -> str:
    """The command line that trains *recipe* on *source*, with every setting that differs from its model's usual recipe.

    Settings that depend on the number of pairs are always included, except for the demo model.
    """
    base, safe = public_name(recipe.model), Recipe.for_model(recipe.model)
    words = ["dpo-hub", "train", f"./{source}" if source.startswith("-") else source]
    words += ["--continue-from", previous] if previous else []
    words += [] if base == DEMO_MODEL else ["--model", LOCAL_PATHS.get(base, base)]
    for setting in fields(recipe):
        value, option = getattr(recipe, setting.name), setting.name.replace("_", "-")
        if value == getattr(safe, setting.name) and (base == DEMO_MODEL or setting.name not in BY_PAIRS):
            continue
        words += [f"--{'' if value else 'no-'}{option}"] if isinstance(value, bool) else [f"--{option}", str(value)]
    return shlex.join(words)
