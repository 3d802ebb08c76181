"""A merged model as one GGUF file, made by llama.cpp's own converter if the user has it. Loads no torch."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from ..errors import ModelError

CONVERTER = "convert_hf_to_gguf.py"
PLACE = "LLAMA_CPP"
"""The environment variable with the path of llama.cpp's folder."""
TYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
SOURCE = "https://github.com/ggml-org/llama.cpp"


def converter() -> list[str] | None:
    """The command that runs the converter, or None if it is not found.

    With `LLAMA_CPP` set, that is the script in that folder, run by this Python; otherwise the one on the PATH.
    """
    if place := os.environ.get(PLACE):
        script = Path(place) / CONVERTER
        return [sys.executable, str(script)] if script.is_file() else None
    found = shutil.which(CONVERTER)
    return [found] if found else None


def convert(call: list[str], folder: Path, name: str, dtype: str) -> Path:
    """Convert the model in *folder* to the file *name* there, completely or not at all.

    Raises:
        ModelError: the converter cannot be started, failed, or wrote no file; the message has its last line of output.
    """
    aside, target = folder / f".{name}", folder / name
    try:
        done = subprocess.run(
            [*call, *_arguments(folder, aside, dtype)], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode or not aside.is_file():
            raise ModelError(
                f"llama.cpp's converter made no GGUF of {folder}, where the merged model stays. Its last line: "
                f"{_last_line(done)}"
            )
        aside.replace(target)
    except OSError as error:
        raise ModelError(f"{call[0]} cannot be run ({error.strerror or error}); the merged model is there.") from error
    finally:
        aside.unlink(missing_ok=True)
    return target


def commands(folder: Path, name: str, dtype: str) -> list[str]:
    """The commands that get the converter and make the file."""
    call = ["python", f"llama.cpp/{CONVERTER}", *_arguments(folder, folder / name, dtype)]
    needs = f"llama.cpp/requirements/requirements-{CONVERTER.removesuffix('.py')}.txt"
    return [f"git clone --depth 1 {SOURCE}", f"python -m pip install -r {needs}", shlex.join(call)]


def _arguments(folder: Path, target: Path, dtype: str) -> list[str]:
    kind = TYPES.get(dtype)
    return [str(folder), "--outfile", str(target), *(["--outtype", kind] if kind else [])]


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2] or f"none (exit code {done.returncode})"
