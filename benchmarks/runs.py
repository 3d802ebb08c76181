"""What managing runs costs: listing a thousand, stopping one, the keeper process, and evaluations during training.

    python benchmarks/runs.py [--json]

Runs train the embedded model. Times are of whole commands, with imports, and of `stop` from the call to its return.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from dpo_hub.demo import FILES
from dpo_hub.preferences import read_preferences
from dpo_hub.recipe import Recipe
from dpo_hub.runs.launch import start, stop
from dpo_hub.runs.run import Run
from dpo_hub.runs.state import State

FOLDERS, TURNS, STOPS = 1000, 5, 5
COMMANDS = (["status"], ["runs"], ["runs", "--all"])
STATES = (State("finished"), State("failed", "No room."), State("stopped"), State("queued"))
STEP = dict.fromkeys(("loss", "margin", "reward_accuracy", "chosen_reward", "rejected_reward"), 0.5)
STEP |= {"epoch": 1.0, "chosen_logp": -3.0, "rejected_logp": -4.0, "grad_norm": 1.0, "learning_rate": 1e-3}


def new_run(**settings: Any) -> Run:
    return Run.create(read_preferences(FILES / "tone.csv"), Recipe.for_model(**settings))


def wait_until(happens: Callable[[], bool]) -> None:
    while not happens():
        time.sleep(0.02)


def seconds(do: Callable[[], Any]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def listing() -> dict[str, Any]:
    """Time the commands that list runs, with a thousand run folders of fifty steps each."""
    first = new_run()
    for step in range(1, 51):
        first.append_metrics({"step": step} | STEP)
    first.write("evaluation.json", json.dumps({"pairs": 100, "reward_accuracy": 0.97, "margin": 1.0}))
    for number in range(FOLDERS):
        copy = Run(first.path.with_name(f"copy-{number:04d}"))
        shutil.copytree(first.path, copy.path)
        copy.set_state(STATES[number % len(STATES)])

    def call(command: list[str]) -> None:
        subprocess.run([sys.executable, "-m", "dpo_hub", *command], stdout=subprocess.DEVNULL, check=True)

    return {" ".join(command): median(seconds(lambda c=command: call(c)) for _ in range(TURNS)) for command in COMMANDS}


def stopping() -> dict[str, Any]:
    """Stop a training run and resume it, a few times; each stop has to leave its last step as a checkpoint."""
    run, took, keeper = new_run(epochs=50, evaluations=0), [], 0
    for _ in range(STOPS):
        done = run.last_metrics.get("step", 0)
        start(run)
        wait_until(lambda done=done: run.last_metrics.get("step", 0) >= done + 3)
        process = run.state.keeper
        keeper = psutil.Process(process.pid).memory_info().rss if process else 0
        took.append(seconds(lambda: stop(run)))
        step = int(run.last_metrics["step"])
        if not (run.path / "checkpoints" / f"checkpoint-{step}").is_dir():
            raise SystemExit(f"no checkpoint of step {step}: {run.log_tail(5)}")
    return {"least": min(took), "median": median(took), "most": max(took), "keeper_bytes": keeper}


def looking() -> dict[str, Any]:
    """Train twice without evaluations and twice with the usual number, after a run that measures the reference."""

    def whole(evaluations: int) -> float:
        run = new_run(evaluations=evaluations)
        start(run)
        return seconds(lambda: wait_until(lambda: run.state.ended))

    whole(0)
    turns = [(whole(0), whole(Recipe().evaluations)) for _ in range(2)]
    without, with_looks = (median(times) for times in zip(*turns, strict=True))
    return {"without": without, "with": with_looks, "ratio": with_looks / without}


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    as_json = parser.parse_args().json
    found = {}
    for name, measure in (("listing", listing), ("stopping", stopping), ("looking", looking)):
        with tempfile.TemporaryDirectory() as home:
            os.environ["DPO_HUB_HOME"] = str(Path(home))
            found[name] = measure()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for command, took in found["listing"].items():
        print(f"dpo-hub {command}, {FOLDERS:,} run folders: {took:.2f} s")
    stops = found["stopping"]
    print(f"stop, {STOPS} times: {stops['least']:.2f} to {stops['most']:.2f} s, median {stops['median']:.2f} s")
    print(f"keeper: {stops['keeper_bytes'] / 1e6:.0f} MB")
    looks = found["looking"]
    print(f"a run without looks {looks['without']:.1f} s, with them {looks['with']:.1f} s: {looks['ratio']:.2f} times")


if __name__ == "__main__":
    main()
