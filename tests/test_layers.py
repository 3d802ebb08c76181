"""The architecture, held by the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import dpo_hub

PACKAGE = Path(dpo_hub.__file__).parent
LAYERS = (
    ("errors",),
    ("recipe",),
    ("preferences",),
    ("runs",),
    ("hub",),
    ("training",),
    ("comparison",),
    ("jobs",),
    ("demo",),
    ("app",),
    ("cli",),
    ("__main__",),
)
"""A package imports from those above it in this list, and from itself. The root's `__init__` only hands out names."""
HEAVY = {"torch", "transformers", "peft", "trl", "datasets", "gradio"}
"""What takes seconds to import, and is not there without an extra."""
SLOW = HEAVY | {"huggingface_hub", "httpx2", "pyarrow", "numpy", "scipy", "matplotlib", "rich", "jinja2", "gguf"}
"""What is too slow to be imported by commands that do not use it."""
OPTIONAL = {"bitsandbytes", "readline", "starlette"}
"""What may not be there."""
LIGHT = (
    "dpo_hub.cli",
    "dpo_hub.hub.export",
    "dpo_hub.hub.publish",
    "dpo_hub.hub.space",
    "dpo_hub.runs.keeper",
    "dpo_hub.runs.launch",
    "dpo_hub.runs.sweep",
    "dpo_hub.jobs.job",
    "dpo_hub.jobs.submit",
    "dpo_hub.comparison.frontier",
    "dpo_hub.comparison.judges",
    "dpo_hub.comparison.endpoint",
    "dpo_hub.comparison.likeness",
    "dpo_hub.comparison.tally",
    "dpo_hub.training.machine",
    "dpo_hub.training.smollm2",
)
"""What starts without any of HEAVY, and with it all that it imports."""
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "__init__.py"
}


def imports_of(module: str, *, inside_functions: bool = False, for_types: bool = True) -> Iterator[str]:
    """The modules that *module* imports: those of the package named within it, others by their first name.

    That is either at its top, those for type checkers included or not, or in its functions.
    """
    path = MODULES[module]
    folder = path.relative_to(PACKAGE).parent.parts
    for node in _imports(ast.parse(path.read_text(encoding="utf-8")), inside_functions, for_types):
        if isinstance(node, ast.Import):
            yield from (f":{alias.name.partition('.')[0]}" for alias in node.names)
        elif node.level:
            base = (*folder[: len(folder) - node.level + 1], *(node.module or "").split("."))
            name = ".".join(part for part in base if part)
            for alias in node.names:
                inner = f"{name}.{alias.name}".strip(".")
                yield from [inner] if inner in MODULES else [name] if name else []
        else:
            yield f":{str(node.module).partition('.')[0]}"


def _imports(tree: ast.AST, inside_functions: bool, for_types: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            if not inside_functions:
                yield node
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if inside_functions:
                yield from (child for child in ast.walk(node) if isinstance(child, (ast.Import, ast.ImportFrom)))
        elif for_types or not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield from _imports(node, inside_functions, for_types)


@cache
def is_slow(module: str) -> bool:
    """Whether importing *module*, with all that it imports at its top, takes long or may fail."""
    if module.startswith(":"):
        return module.removeprefix(":") in SLOW | OPTIONAL
    return any(map(is_slow, imports_of(module, for_types=False)))


def test_imports_point_one_way() -> None:
    """A package imports what stands above it in the list, and nothing else but itself."""
    layer = {package: number for number, packages in enumerate(LAYERS) for package in packages}
    climbs = [
        f"{module} imports {name}"
        for module in MODULES
        for name in {*imports_of(module), *imports_of(module, inside_functions=True)}
        if not name.startswith(":")
        for package, other in [(module.partition(".")[0], name.partition(".")[0])]
        if layer[other] > layer[package] or (layer[other] == layer[package] and other != package)
    ]
    assert climbs == []


def test_there_is_no_circle() -> None:
    """No module imports one that, by whatever way, imports it: not for its types either, nor inside a function."""
    graph = {
        module: {name for inside in (False, True) for name in imports_of(module, inside_functions=inside)}
        for module in MODULES
    }
    TopologicalSorter(graph).prepare()


def test_functions_import_only_what_is_slow() -> None:
    """Everything else is imported where a reader looks for it, at the top of the module."""
    found = [
        f"{module} imports {name.removeprefix(':')} inside a function"
        for module in MODULES
        for name in imports_of(module, inside_functions=True)
        if not is_slow(name)
    ]
    assert found == []


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_nothing_heavy(module: str) -> None:
    """The core starts without torch, transformers, peft, trl, datasets and gradio."""
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def test_trl_is_imported_in_one_module_only() -> None:
    """Only training/trainer.py knows TRL."""
    importers = [module for module in MODULES if ":trl" in imports_of(module)]
    assert importers == ["training.trainer"]


def test_the_first_floor_is_small() -> None:
    """A stranger sees the package's rooms at one glance."""
    assert len([path for path in PACKAGE.iterdir() if path.name != "__pycache__"]) <= 14
