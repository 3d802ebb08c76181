"""docs/formats.md, executed."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from dpo_hub.preferences import read_preferences, text_of
from dpo_hub.preferences.layouts.mapping import PARTS

DOC = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"^```(csv|json|jsonl)\n(.*?)^```\n\n> (.*?)\n$", re.DOTALL | re.MULTILINE)
EXAMPLES = [match.groups() for match in EXAMPLE.finditer(DOC)]
BETTER = {
    "Hello!", "Hello! How can I help?", "See you soon!", "friend", "It arrives tomorrow!", "Of course: within 30 days.",
}  # fmt: skip
WORSE = {"What.", "k", "Yes?", "fiend", "Go away.", "No idea.", "Read the terms.", "Cold, I guess."}


@pytest.mark.parametrize(("suffix", "content", "told"), EXAMPLES)
def test_an_example_reads_as_it_says(tmp_path: Path, suffix: str, content: str, told: str) -> None:
    """Each example is read as the line below it says, the better reply chosen and the worse rejected."""
    path = tmp_path / f"pairs.{suffix}"
    path.write_text(content, encoding="utf-8")
    preferences = read_preferences(path)
    assert preferences.sentence() == told
    assert {text_of(pair.chosen) for pair in preferences.pairs if "tool_calls" not in pair.chosen[0]} <= BETTER
    assert {text_of(pair.rejected) for pair in preferences.pairs} <= WORSE


def test_every_layout_has_an_example() -> None:
    """No section on a layout is without one, and there are as many as were written."""
    sections = DOC[DOC.index("\n## Prompt, chosen") : DOC.index("\n## What is left out")]
    ends = [match.start() for match in re.finditer(r"^## ", sections, re.MULTILINE)] + [len(sections)]
    assert all(EXAMPLE.search(sections[start:end]) for start, end in pairwise(ends))
    assert len(EXAMPLES) == sections.count("\n> ") >= 30


def test_every_part_of_a_mapping_is_documented() -> None:
    """The table of parts is the program's own."""
    assert all(f"| `{part}` | {meaning} |" in DOC for part, meaning in PARTS.items())
