"""Export a finished run as a folder with the whole model, for Transformers, Ollama and llama.cpp. Loads no torch."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError, RunError, explaining_disk_full
from ..runs.run import Run
from . import gguf as llama
from .models import Merged, merge
from .ollama import modelfile, name_for


@dataclass(frozen=True)
class Exported:
    """A merged model in a folder: how it was checked, and its GGUF file, or why there is none and how to make it."""

    folder: Path
    name: str
    merged: Merged
    gguf: Path | None = None
    why_not: str = ""
    commands: tuple[str, ...] = ()


def export(run: Run, out: Path, *, gguf: bool = False) -> Exported:
    """Write the base model of *run*, with the adapter merged into it, to the folder *out*, completely or not at all.

    Args:
        run: a finished run.
        out: does not exist yet or is empty; its parent exists.
        gguf: also make a GGUF file, if llama.cpp's converter is available.

    Raises:
        RunError: the run has not finished, its adapter was removed, or *out* cannot be used.
        ModelError: the model cannot be merged, or the merged model gives different results.
        DiskFullError: the disk is full.
    """
    run.require_finished()
    out = out.absolute()
    _require_exportable(run, out)
    name = name_for(out)
    with (
        explaining_disk_full(out.parent),
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".aside") as made,
    ):
        folder = Path(made) / "merged"
        merged = merge(run, folder)
        _write_modelfile(folder, name, merged)
        folder.rename(out)
    done = Exported(out, name, merged)
    return _converted(done) if gguf else done


def _require_exportable(run: Run, out: Path) -> None:
    if not (run.adapter / "adapter_model.safetensors").is_file():
        raise RunError(f"There is no adapter in {run.adapter}, so there is nothing to merge. Train the run again.")
    if not out.parent.is_dir():
        raise RunError(f"There is no folder {out.parent} to write {out.name} into. Make it first.")
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise RunError(
            f"{out} is there already, and nothing is written over. Name a folder that is not there or empty."
        )


def _write_modelfile(folder: Path, name: str, merged: Merged, *, gguf: str | None = None) -> None:
    (folder / "Modelfile").write_text(modelfile(folder, name=name, stops=merged.stops, gguf=gguf), encoding="utf-8")


def _converted(done: Exported) -> Exported:
    """The same export with a GGUF file, or with the commands to make one."""
    file, folder, merged = f"{done.name}.gguf", done.folder, done.merged
    call = llama.converter()
    typed = tuple(llama.commands(folder, file, merged.dtype))
    if not call:
        why_not = f"llama.cpp's {llama.CONVERTER} is neither on the PATH nor in the folder that {llama.PLACE} names."
        return Exported(folder, done.name, merged, why_not=why_not, commands=typed)
    try:
        path = llama.convert(call, folder, file, merged.dtype)
    except ModelError as error:
        return Exported(folder, done.name, merged, why_not=str(error))
    _write_modelfile(folder, done.name, merged, gguf=file)
    return Exported(folder, done.name, merged, gguf=path)
