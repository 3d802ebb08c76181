"""`dpo-hub merge`, on a run that is trained once."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from dpo_hub.demo import FILES
from dpo_hub.hub.ollama import modelfile, name_for
from dpo_hub.recipe import Recipe
from dpo_hub.runs.run import Run
from dpo_hub.runs.state import State

from .command import Done, dpo_hub

WORKS = """
import sys, pathlib
folder, outfile, kind = sys.argv[1], sys.argv[sys.argv.index("--outfile") + 1], sys.argv[-1]
assert (pathlib.Path(folder) / "model.safetensors").is_file()
pathlib.Path(outfile).write_bytes(b"GGUF " + kind.encode())
"""
FAILS = """
import sys, pathlib
pathlib.Path(sys.argv[sys.argv.index("--outfile") + 1]).write_bytes(b"half")
sys.exit("Traceback (most recent call last):\\n  …\\nNotImplementedError: Architecture 'X' not supported!")
"""


@pytest.fixture(scope="module")
def merged(trained_run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a folder that the run was merged into, and what was printed."""
    out = tmp_path_factory.mktemp("out") / "My Shop"
    done = _merge(trained_run.path, out, path="")
    assert (done.returncode, done.stderr) == (0, "")
    return out, done.stdout


def _merge(*arguments: object, path: str, **environment: str) -> Done:
    return dpo_hub("merge", *arguments, **{"LLAMA_CPP": "", "PATH": path} | environment)


@pytest.fixture
def converter(tmp_path: Path) -> Callable[..., str]:
    """Return a function that puts a script in the converter's place, and returns its folder."""

    def put(code: str, *, mode: int = 0o755) -> str:
        script = tmp_path / "bin" / "convert_hf_to_gguf.py"
        script.parent.mkdir()
        script.write_text(f"#!{sys.executable}\n{code}", encoding="utf-8")
        script.chmod(mode)
        return str(script.parent)

    return put


def _assert_refused(done: Done, told: str) -> None:
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("dpo-hub: ")
    assert told in line


def test_a_run_becomes_a_folder(merged: tuple[Path, str]) -> None:
    """The folder loads without PEFT, and what was compared and what to type for Ollama are told."""
    out, told = merged
    model = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert model.dtype == torch.float32
    assert f"Merged: {out} (float32)\n" in told
    assert "100% of the adapter's effect is there" in told
    assert f"For Ollama:  ollama create my-shop -f '{out}/Modelfile'" in told
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    text = (out / "Modelfile").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if not line.startswith("#")] == ["FROM .", 'PARAMETER stop "<|end|>"']
    assert "ollama show --template my-shop" in text


def test_nothing_is_written_over(trained_run: Run, merged: tuple[Path, str], tmp_path: Path) -> None:
    """A folder with something in it, a file, a link, and a parent that is not there are each refused in a line."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch()
    link.symlink_to(tmp_path / "nowhere")
    for out in (merged[0], file, link):
        _assert_refused(_merge(trained_run.path, out, path=""), "is there already, and nothing is written over")
    _assert_refused(_merge(trained_run.path, tmp_path / "no" / "out", path=""), "There is no folder")
    assert not (tmp_path / "no").exists()


def test_a_run_that_cannot_be_merged(trained_run: Run, tmp_path: Path) -> None:
    """One that is not finished, or whose adapter is gone or broken, is a line, and no folder is left."""
    run, out = Run(Path(shutil.copytree(trained_run.path, tmp_path / "run"))), tmp_path / "out" / "merged"
    out.parent.mkdir()
    weights = run.adapter / "adapter_model.safetensors"
    save_file({name: tensor * torch.nan for name, tensor in load_file(weights).items()}, weights)
    _assert_refused(_merge(run.path, out, path=""), "The adapter could not be worked into its base model.")
    weights.unlink()
    _assert_refused(_merge(run.path, out, path=""), "There is no adapter in")
    run.set_state(State("failed", reason="It was too late."))
    _assert_refused(_merge(run.path, out, path=""), "is failed, not finished. It was too late.")
    assert list(out.parent.iterdir()) == []


def test_an_adapter_that_bfloat16_swallows_is_a_note(trained_run: Run, tmp_path: Path) -> None:
    """The model is there, the exit code 0, and the note says how much is left and what to do."""
    run, base = Run(Path(shutil.copytree(trained_run.path, tmp_path / "run"))), tmp_path / "base"
    shutil.copytree(FILES.parent / "model", base)
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    run.write("recipe.json", Recipe(model=str(base)).to_json())
    weights = run.adapter / "adapter_model.safetensors"
    save_file({name: tensor * 0.1 for name, tensor in load_file(weights).items()}, weights)
    out = tmp_path / "merged"
    done = _merge(run.path, out, path="")
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("note: Only ")
    assert "is left in bfloat16" in line
    assert f"Merged: {out} (bfloat16)\n" in done.stdout


@pytest.mark.parametrize("found_by", [pytest.param("PATH", marks=pytest.mark.full), "LLAMA_CPP"])
def test_a_gguf_file_is_made(found_by: str, trained_run: Run, tmp_path: Path, converter: Callable[..., str]) -> None:
    """The converter gets folder, file and type; what it makes is beside the weights, and named by the Modelfile."""
    out, place = tmp_path / "shop", converter(WORKS)
    out.mkdir()
    done = _merge(trained_run.path, out, "--gguf", "--json", **{"path": "", found_by: place})
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["folder"], told["gguf"], told["why_not"]) == (str(out), str(out / "shop.gguf"), "")
    assert told["merged"].keys() == {"dtype", "prompts", "worst", "share", "stops"}
    assert told["ollama"] == f"ollama create shop -f {out}/Modelfile"
    assert (out / "shop.gguf").read_bytes() == b"GGUF f32"
    assert "\nFROM ./shop.gguf\n" in (out / "Modelfile").read_text(encoding="utf-8")


def test_a_converter_that_fails(trained_run: Run, tmp_path: Path, converter: Callable[..., str]) -> None:
    """Its last line is told with exit code 2, the merged model stays, and half a file does not."""
    out = tmp_path / "shop"
    done = _merge(trained_run.path, out, "--gguf", path=converter(FAILS))
    _assert_refused(done, "Its last line: NotImplementedError: Architecture 'X' not supported!")
    assert f"Merged: {out} (float32)\n" in done.stdout
    assert (out / "model.safetensors").is_file()
    assert [path.name for path in out.iterdir() if "gguf" in path.name] == []
    assert "\nFROM .\n" in (out / "Modelfile").read_text(encoding="utf-8")


def test_a_converter_that_cannot_be_started(trained_run: Run, tmp_path: Path, converter: Callable[..., str]) -> None:
    """A script whose interpreter is not there is a line; the merged model stays."""
    place = converter("")
    (Path(place) / "convert_hf_to_gguf.py").write_text("#!/no/such/python\n", encoding="utf-8")
    _assert_refused(_merge(trained_run.path, tmp_path / "shop", "--gguf", path=place), "cannot be run")
    assert (tmp_path / "shop" / "model.safetensors").is_file()


@pytest.mark.parametrize("there", [False, pytest.param(True, marks=pytest.mark.full)])
def test_without_a_converter_what_to_type_is_told(
    there: bool, trained_run: Run, tmp_path: Path, converter: Callable[..., str]
) -> None:
    """No converter, or one that is not executable: the model is merged, and the commands are told with exit code 0."""
    out = tmp_path / "shop"
    done = _merge(trained_run.path, out, "--gguf", path=converter(WORKS, mode=0o644) if there else "")
    assert (done.returncode, done.stderr) == (0, "")
    assert "No GGUF was made: llama.cpp's convert_hf_to_gguf.py is neither on the PATH nor" in done.stdout
    for command in (
        "git clone --depth 1 https://github.com/ggml-org/llama.cpp",
        "python -m pip install -r llama.cpp/requirements/requirements-convert_hf_to_gguf.txt",
        f"python llama.cpp/convert_hf_to_gguf.py {out} --outfile {out}/shop.gguf --outtype f32",
    ):
        assert f"\n  {command}\n" in done.stdout


def test_names_and_sampling_settings(tmp_path: Path) -> None:
    """Ollama gets a name that it takes, and the model's own sampling settings only where it samples."""
    assert [name_for(Path(name)) for name in ("My Shop", "Ünï", "…", "qwen2.5_x")] == [
        "my-shop",
        "n",
        "merged",
        "qwen2.5_x",
    ]
    for sampling in (True, False):
        settings = {"do_sample": sampling, "temperature": 0.7, "top_k": None}
        (tmp_path / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
        assert ("PARAMETER temperature 0.7" in modelfile(tmp_path, name="x", stops=())) == sampling
