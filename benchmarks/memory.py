"""The memory of a run: the forecast before its first step, compared with what it used.

    python benchmarks/memory.py [--json] [--case NAME]…

Each case trains through `dpo_hub.training.train.train` in a separate process. *forecast* is from the run's
preflight.json; *measured* is the process's peak: resident memory on a CPU (VmHWM), allocated memory on CUDA. *process*
covers its whole life, including loading and the check of the engine; *training* starts at the forecast (VmHWM is reset
there, which requires Linux). Models have random weights, texts random words, and lengths are log-normal.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import training as steps

GROUPED = steps.LLAMA | {"num_attention_heads": 6, "num_key_value_heads": 2}
steps.SHAPES["10m"] = GROUPED | {"vocab_size": 8192, "hidden_size": 192, "intermediate_size": 512}
steps.SHAPES["10m"] |= {"num_hidden_layers": 8}
steps.SHAPES["30m"] = GROUPED | {"vocab_size": 16384, "hidden_size": 384, "intermediate_size": 1024}
steps.SHAPES["30m"] |= {"num_hidden_layers": 12}


@dataclass(frozen=True)
class Case:
    """A model, an engine, and the number and lengths of the pairs."""

    name: str
    shape: str
    engine: str
    lengths: str
    batch_size: int
    steps: int


CASES = (
    Case("demo", "demo", "shared-prefix", "demo", 16, 10),
    Case("demo-trl", "demo", "trl", "demo", 16, 10),
    Case("10m", "10m", "shared-prefix", "hh", 2, 8),
    Case("30m-hh", "30m", "shared-prefix", "hh", 4, 6),
    Case("30m-ultrafeedback", "30m", "shared-prefix", "ultrafeedback", 4, 6),
    Case("30m-trl", "30m", "trl", "hh", 2, 3),
    Case("135m-hh", "135m", "shared-prefix", "hh", 4, 4),
    Case("135m-summarise", "135m", "shared-prefix", "summarise", 2, 4),
)


def prepare(case: Case, home: Path) -> Path:
    """Make a base model, pairs and a queued run."""
    from dpo_hub.demo import FILES
    from dpo_hub.preferences import read_preferences
    from dpo_hub.recipe import Recipe
    from dpo_hub.runs.run import Run

    os.environ["DPO_HUB_HOME"] = str(home)
    model, file = "demo", FILES / "tone.csv"
    if case.shape == "demo":
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file = home / "tone.csv"
        file.write_text("".join(lines[: 2 + case.batch_size * case.steps * 10 // 9]), encoding="utf-8")
    else:
        model, file = str(steps.make_model(steps.SHAPES[case.shape], home / "model")), home / "pairs.csv"
        of = steps.Case(case.name, "", case.shape, case.lengths, case.batch_size, 0)
        steps.write_pairs(file, of, case.steps, 0.8)
    settings: dict[str, Any] = {"batch_size": case.batch_size, "engine": case.engine, "epochs": 1.0, "held_out": 0.1}
    return Run.create(read_preferences(str(file)), Recipe.for_model(model, **settings)).path


class Reset(logging.Handler):
    """Resets the peak when the forecast is logged, and keeps the peak until then."""

    earlier = 0

    def emit(self, record: logging.LogRecord) -> None:
        from dpo_hub.training.memory import peak_bytes
        from dpo_hub.training.policy import device

        if record.getMessage().startswith("memory: "):
            self.earlier = peak_bytes(device())
            if device().type == "cuda":
                import torch

                torch.cuda.reset_peak_memory_stats()
            else:
                Path("/proc/self/clear_refs").write_text("5")


def child(folder: Path) -> None:
    """Train, and print the peak memory before the forecast and after it."""
    from dpo_hub.runs.run import Run
    from dpo_hub.training.memory import peak_bytes
    from dpo_hub.training.policy import device, quiet
    from dpo_hub.training.train import train

    quiet()
    reset, package = Reset(), logging.getLogger("dpo_hub")
    package.addHandler(reset)
    package.setLevel(logging.INFO)
    train(Run.open(folder))
    print(f"@{reset.earlier} {peak_bytes(device())}")


def measure(case: Case) -> dict[str, Any]:
    """Train in a separate process; return the forecast and the measured peak."""
    with tempfile.TemporaryDirectory() as folder:
        making = [sys.executable, __file__, "--prepare", case.name, folder]
        run = subprocess.run(making, capture_output=True, text=True, check=True).stdout.split()[-1]
        working = [sys.executable, __file__, "--child", run]
        environment = os.environ | {"DPO_HUB_HOME": folder, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(working, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise SystemExit(f"{case.name} ended early:\n{done.stderr[-2000:]}")
        earlier, training = map(int, done.stdout.split("@")[-1].split())
        memory = json.loads((Path(run) / "preflight.json").read_text())["memory"]
    measured = {"process": max(earlier, training), "training": training}
    forecast = {"process": memory["peak"], "training": memory["training"]}
    ratio = {name: round(forecast[name] / measured[name], 3) for name in measured}
    return asdict(case) | {"forecast": forecast, "measured": measured, "ratio": ratio, "parts": memory}


def tell(case: dict[str, Any]) -> None:
    """Print one case on a line."""
    told = [
        f"{part}: forecast {case['forecast'][part] / 1e6:5,.0f} MB, measured {case['measured'][part] / 1e6:5,.0f} MB, "
        f"{case['ratio'][part]:.2f}"
        for part in case["ratio"]
    ]
    print(f"{case['name']:18} {';  '.join(told)}", flush=True)


def main() -> None:
    """Measure all cases, or the named ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="only this one")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--prepare", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.prepare:
        name, home = args.prepare
        return print(prepare(next(case for case in CASES if case.name == name), Path(home)))
    if args.child:
        return child(args.child)
    cases = []
    for case in CASES:
        if not args.case or case.name in args.case:
            cases.append(measure(case))
            if not args.json:
                tell(cases[-1])
    if args.json:
        print(json.dumps({"cases": cases}, indent=2))
    return None


if __name__ == "__main__":
    main()
