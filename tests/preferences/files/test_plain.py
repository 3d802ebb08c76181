from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpo_hub.preferences.files import plain
from dpo_hub.preferences.files.plain import plain_json
from dpo_hub.preferences.table import NotPlain

LINES = [json.dumps({"prompt": f"ask {n}", "note": {"a": "}{"}}) for n in range(40)]


def prompts(path: Path, text: str) -> list[str]:
    path.write_bytes(text.encode())
    return [prompt for batch in plain_json(path, ["prompt"]) for prompt in batch.column(0).to_pylist()]


@pytest.mark.parametrize("block", [64, 200, 2**22])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_one_object_a_line_is_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, end: str, last: bool
) -> None:
    """Lines that end either way are read, whatever the blocks, with or without a final line break."""
    monkeypatch.setattr(plain, "BLOCK_BYTES", block)
    assert prompts(tmp_path / "a.jsonl", end.join(LINES) + end * last) == [f"ask {n}" for n in range(40)]


@pytest.mark.parametrize("block", [64, 200, 2**22])
@pytest.mark.parametrize("place", [0, 7, 39])
@pytest.mark.parametrize(
    "fault", ["{0}{0}", "{0}\n", "\n{0}", "{0}{0}\n", "\n{0} {0}", "{0}\n{0}{0}\n", "{0} 7", "[{0}]"]
)
def test_what_is_not_one_object_a_line_is_not_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, place: int, fault: str
) -> None:
    """Two objects on a line and a blank line do not make up for one another."""
    monkeypatch.setattr(plain, "BLOCK_BYTES", block)
    lines = [fault.format(line) if at == place else line for at, line in enumerate(LINES)]
    with pytest.raises(NotPlain):
        prompts(tmp_path / "a.jsonl", "\n".join(lines) + "\n")
