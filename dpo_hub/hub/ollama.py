"""The Modelfile from which Ollama creates a model. Knows nothing of Ollama's server."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

SAMPLING = ("temperature", "top_p", "top_k")
NOTES = """\
# Ollama does not run chat_template.jinja. See which template it took, and write a TEMPLATE here if that is not right:
#   ollama show --template {name}
"""
WEIGHTS = """\
# If Ollama does not take these weights, make a GGUF file (dpo-hub merge --gguf).
"""


def name_for(folder: Path) -> str:
    """A name that Ollama accepts, derived from the name of *folder*."""
    return re.sub(r"[^a-z0-9._-]+", "-", folder.name.lower()).strip("-._") or "merged"


def modelfile(folder: Path, *, name: str, stops: Sequence[str], gguf: str | None = None) -> str:
    """The Modelfile for the merged model in *folder*, or for the file *gguf* there.

    Sampling settings come from the model's generation_config.json, if that enables sampling.
    """
    lines = [f"FROM ./{gguf}" if gguf else "FROM ."]
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    lines += [f"PARAMETER {setting} {value}" for setting, value in _sampling(folder).items()]
    return ("" if gguf else WEIGHTS) + NOTES.format(name=name) + "\n".join(lines) + "\n"


def create_command(folder: Path, name: str) -> str:
    return shlex.join(["ollama", "create", name, "-f", str(folder / "Modelfile")])


def _sampling(folder: Path) -> dict[str, float]:
    path = folder / "generation_config.json"
    asked = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {name: asked[name] for name in SAMPLING if asked.get("do_sample") and asked.get(name) is not None}
