"""The architecture, held by the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dpo_hub

PACKAGE = Path(dpo_hub.__file__).parent
LAYERS = (
    ("errors",),
    ("preferences", "recipe", "demo", "demo.shop", "demo.assistant"),
    ("base",),
    ("state",),
    ("run",),
    ("training.gguf", "training.memory", "training.machine"),
    ("demo.smollm2",),
    ("turns", "heartbeat", "training.health", "comparison.intervals"),
    ("headline",),
    ("progress", "keeper"),
    ("training", "training.policy", "training.metrics", "hub"),
    ("training.trainer", "comparison"),
    ("training.train", "training.ahead"),
    ("training.worker",),
    ("demo.guards",),
    ("demo.showcase",),
    ("launch",),
    ("sweep",),
    ("hub.remote", "hub.jobs", "hub.job"),
    ("cli_runs", "cli_chat", "cli_demo", "cli_jobs", "cli_recipe", "cli_space", "cli_votes", "app"),
    ("cli_publish", "cli_judge", "cli_lens", "cli_merge", "cli_sweep"),
    ("cli",),
    ("__main__",),
)
LIGHT = (
    "dpo_hub",
    "dpo_hub.cli",
    "dpo_hub.hub",
    "dpo_hub.hub.account",
    "dpo_hub.hub.calls",
    "dpo_hub.hub.commits",
    "dpo_hub.hub.package",
    "dpo_hub.hub.space",
    "dpo_hub.keeper",
    "dpo_hub.headline",
    "dpo_hub.progress",
    "dpo_hub.comparison.likeness",
    "dpo_hub.cli_runs",
    "dpo_hub.cli_chat",
    "dpo_hub.cli_space",
    "dpo_hub.training.health",
    "dpo_hub.hub.card",
    "dpo_hub.hub.publish",
    "dpo_hub.hub.export",
    "dpo_hub.cli_merge",
    "dpo_hub.hub.jobs",
    "dpo_hub.hub.job",
    "dpo_hub.cli_jobs",
    "dpo_hub.cli_votes",
    "dpo_hub.comparison.votes",
    "dpo_hub.comparison.tally",
    "dpo_hub.cli_judge",
    "dpo_hub.cli_lens",
    "dpo_hub.comparison.endpoint",
    "dpo_hub.comparison.judges",
    "dpo_hub.preferences.replies",
    "dpo_hub.launch",
    "dpo_hub.sweep",
    "dpo_hub.cli_sweep",
    "dpo_hub.comparison.frontier",
    "dpo_hub.training.machine",
    "dpo_hub.base",
    "dpo_hub.demo.smollm2",
)
HEAVY = {"torch", "transformers", "peft", "trl", "datasets", "gradio"}


def layer_of(module: str) -> int:
    """Return the layer of the longest prefix of *module* that a layer names."""
    parts = module.split(".")
    prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next(i for prefix in prefixes for i, layer in enumerate(LAYERS) if prefix in layer)


def imports_of(path: Path) -> set[str]:
    """Return the modules of the package that the file at *path* imports, named within the package."""
    folder = path.relative_to(PACKAGE).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("dpo_hub")):
            above = folder[: len(folder) - node.level + 1] if node.level else ()
            base = (*above, *(node.module or "").removeprefix("dpo_hub").strip(".").split("."))
            name = ".".join(part for part in base if part)
            found |= {
                f"{name}.{a.name}" if (PACKAGE / Path(*base) / f"{a.name}.py").is_file() else name for a in node.names
            }
    return found - {""}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    """A module imports from its own layer or from those below it."""
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    if module == "__init__":
        return
    upward = {name for name in imports_of(path) if layer_of(name) > layer_of(module)}
    assert not upward, f"{module} imports {upward}, which stand above it"


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_nothing_heavy(module: str) -> None:
    """The core starts without torch, transformers, peft, trl, datasets and gradio."""
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def test_trl_is_imported_in_one_module_only() -> None:
    """Only training/trainer.py knows TRL."""
    importers = [p for p in PACKAGE.rglob("*.py") if "from trl" in p.read_text() or "import trl" in p.read_text()]
    assert importers == [PACKAGE / "training" / "trainer.py"]
