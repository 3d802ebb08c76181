"""What the tests of layouts share: rows to a file to preferences, and short ways to write chats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from dpo_hub.preferences import Preferences, read_preferences, text_of

Message = dict[str, Any]
Texts = tuple[str, str, str]


class Read(Protocol):
    """Read rows as a file of JSON Lines."""

    def __call__(self, *rows: Mapping[str, Any], mapping: Mapping[str, str] | None = None) -> Preferences: ...


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Return a function that writes rows to a file of JSON Lines, and reads it."""

    def write_and_read(*rows: Mapping[str, Any], mapping: Mapping[str, str] | None = None) -> Preferences:
        path = tmp_path / "pairs.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return read_preferences(path, mapping=mapping)

    return write_and_read


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def chat(*texts: str) -> list[Message]:
    """Turns of user and assistant."""
    return [(user, assistant)[place % 2](text) for place, text in enumerate(texts)]


def texts(preferences: Preferences) -> list[Texts]:
    """Prompt, chosen and rejected of each pair, as text."""
    return [(text_of(pair.prompt), text_of(pair.chosen), text_of(pair.rejected)) for pair in preferences.pairs]
