"""The model card: what it says, and what hostile text cannot make it say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from dpo_hub.hub.card import LOCAL_FOLDER, public_base, render_card

from .conftest import BASE, SAMPLE, measured_run

EVIL = (
    "\n---\nlicense: mit\n---\n# Owned\n| a | b |\n```\n</details><script>alert(1)</script>\n````\n![x](http://x/y)\n"
)
METADATA = {
    "base_model": BASE,
    "base_model_relation": "adapter",
    "library_name": "peft",
    "pipeline_tag": "text-generation",
    "tags": ["dpo", "lora", "trl", "dpo-hub"],
}


def metadata(card: str) -> Any:
    return ModelCard(card).data.to_dict()  # type: ignore[no-untyped-call]  # huggingface_hub is typed in part


def outside_fences(markdown: str) -> str:
    """What is left of *markdown* without its fenced code and its code spans."""
    without_fences = re.sub(r"^(`{3,})[^`\n]*\n.*?^\1$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", without_fences)


def test_a_card_tells_what_was_taught_and_measured(tmp_path: Path) -> None:
    """Source, pairs, rows left out, measurements, samples, recipe, packages and digest are all there."""
    run = measured_run(tmp_path)
    card = render_card(run)
    for told in (
        "10 pairs from `tone.csv`: 8 to train on and\n2 held out",
        "- 2: `no chosen`",
        "| Reward accuracy | 1.000 |",
        "| Mean margin | 0.750 |",
        "```text\nbecause\n```",
        "| beta | `0.1` |",
        "| peft | ",
        run.report["sha256"],
        'from_pretrained("ada/tiny-base")',
    ):
        assert told in card


def test_the_metadata_is_what_the_hub_reads(tmp_path: Path) -> None:
    """The Hub's own parser finds library, base model, task and tags."""
    assert metadata(render_card(measured_run(tmp_path))) == METADATA


@pytest.mark.parametrize("part", ["source", "prompt", "before", "after"])
def test_hostile_text_is_inert(tmp_path: Path, part: str) -> None:
    """A file name, prompt or reply full of YAML, Markdown and HTML changes no metadata and renders as text."""
    source = f"{EVIL.replace('/', ' ')}.csv" if part == "source" else "tone.csv"
    card = render_card(measured_run(tmp_path, source=source, sample=SAMPLE | {part: EVIL}))
    assert metadata(card) == METADATA
    body = outside_fences(ModelCard(card).text)
    assert [trick for trick in ("Owned", "script", "](http://x", "license: mit") if trick in body] == []
    assert body.count("\n## ") == 7


def test_a_backtick_at_the_edge_of_a_file_name(tmp_path: Path) -> None:
    """A code span whose text has backticks at its ends is not closed by them."""
    card = render_card(measured_run(tmp_path, source="`a``b`"))
    assert "from ``` `a``b` ```:" in card


@pytest.mark.parametrize("model", ["/home/ada/secret/model", "./secret/model", "C:\\secret\\model", "~/secret/model"])
def test_a_path_is_not_told(tmp_path: Path, model: str) -> None:
    """A base model in a folder is called a local folder, and the metadata names no base model."""
    card = render_card(measured_run(tmp_path, model=model))
    assert "secret" not in card
    assert LOCAL_FOLDER in card
    assert "base_model" not in metadata(card)


def test_a_folder_that_looks_like_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder `owner/name` is a folder, as it is for whoever loads it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert public_base("owner/name") == LOCAL_FOLDER
    assert public_base("owner/other") == "owner/other"


def test_the_demo_model_is_loaded_from_the_package(tmp_path: Path) -> None:
    """A card of a run on the demo model loads the base from the package and names no base on the Hub."""
    card = render_card(measured_run(tmp_path, model="demo"))
    assert "from dpo_hub.demo import MODEL" in card
    assert "from_pretrained(MODEL)" in card
    assert "base_model" not in metadata(card)
