"""A training step of dpo_hub compared with TRL's, on the same pairs in the same order with the same settings.

    python benchmarks/training.py [--quick] [--json] [--case NAME]… [--steps 4] [--turns 3] [--chart PNG]

Each variant runs its whole trainer: data loading, forward, backward, optimizer, logging. The variants take turns, each
time in a fresh process with the machine's memory to itself; neither its first step nor measuring the reference
beforehand is counted. Ratios are of medians over turns; the slowest variant, TRL with its defaults, has one turn.

    default   TRL with its defaults: activations computed twice, the reference model evaluated at each step
    tuned     TRL without either
    ours      `dpo_hub.training.train.train`

Models have random weights, as speed does not depend on them; only the embedded model is a real one.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

LENGTHS = {"hh": (130, 60, 60), "ultrafeedback": (180, 280, 230), "summarise": (400, 40, 40)}
"""Mean tokens of prompt, chosen and rejected. Lengths are log-normal."""
LLAMA = {"model_type": "llama", "rms_norm_eps": 1e-5, "max_position_embeddings": 8192, "tie_word_embeddings": True}
SHAPES: dict[str, dict[str, Any]] = {
    "135m": LLAMA
    | {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
    | {"num_attention_heads": 9, "num_key_value_heads": 3},  # SmolLM2-135M
    "600m": LLAMA
    | {"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072}
    | {"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128},  # Qwen3-0.6B
    "1b": LLAMA
    | {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
    | {"num_attention_heads": 32, "num_key_value_heads": 8},  # Llama-3.2-1B
    "8b": LLAMA
    | {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    | {"num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False},  # Llama-3.1-8B
}
VARIANTS = ("default", "tuned", "ours")


@dataclass(frozen=True)
class Case:
    """One model on one kind of pairs, and the least factor by which a step should be faster than tuned TRL's."""

    name: str
    device: str
    shape: str
    lengths: str
    batch_size: int
    goal: float


CASES = (
    Case("cpu-demo", "cpu", "demo", "demo", 16, 1.5),
    Case("cpu-135m-hh", "cpu", "135m", "hh", 4, 3),
    Case("cpu-135m-summarise", "cpu", "135m", "summarise", 4, 3),
    Case("cpu-135m-ultrafeedback", "cpu", "135m", "ultrafeedback", 4, 3),
    *(
        Case(f"gpu-{shape}-{lengths}", "cuda", shape, lengths, batch, goal)
        for shape, batch in (("600m", 16), ("1b", 16), ("8b", 8))
        for lengths, goal in (("hh", 2), ("summarise", 2), ("ultrafeedback", 1.5))
    ),
)


# What is trained on


def prepare(case: Case, home: Path, steps: int, spread: float) -> dict[str, Path]:
    """Make the base model, the pairs, and a queued run for each variant, all in the same split and order."""
    from dpo_hub.demo import FILES
    from dpo_hub.preferences import read_preferences
    from dpo_hub.recipe import Recipe
    from dpo_hub.runs.run import Run

    if case.shape == "demo":
        model, file = "demo", FILES / "tone.csv"
    else:
        model, file = str(make_model(SHAPES[case.shape], home / "model")), home / "pairs.csv"
        write_pairs(file, case, steps, spread)
    recipe = Recipe.for_model(model, batch_size=case.batch_size, epochs=1.0, held_out=0.02, evaluations=0)
    runs = {}
    for variant in VARIANTS:
        os.environ["DPO_HUB_HOME"] = str(home / variant)
        runs[variant] = Run.create(read_preferences(str(file)), recipe).path
    return runs


def make_model(shape: dict[str, Any], folder: Path) -> Path:
    """Save a random model of this shape, and a tokenizer that makes each word one token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    settings = dict(shape)
    torch.manual_seed(0)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings, pad_token_id=0, eos_token_id=1)
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder)
    words = {"<pad>": 0, "<eos>": 1} | {f"w{number}": number for number in range(2, shape["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    fast.chat_template = (
        "{% for m in messages %}{{ m.content }}{{ ' <eos> ' if m.role == 'assistant' else ' ' }}{% endfor %}"
    )
    fast.save_pretrained(folder)
    return folder


def write_pairs(file: Path, case: Case, steps: int, spread: float) -> None:
    """Write enough pairs of random words for *steps* steps, and for the held-out split."""
    import numpy as np

    draw = np.random.default_rng(0)
    vocabulary = SHAPES[case.shape]["vocab_size"]

    def text(mean: int) -> str:
        length = max(2, round(mean * draw.lognormal(-(spread**2) / 2, spread)))
        return " ".join(f"w{number}" for number in draw.integers(2, vocabulary, length))

    with file.open("w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(("prompt", "chosen", "rejected"))
        rows.writerows(map(text, LENGTHS[case.lengths]) for _ in range(case.batch_size * steps + 4))


# One way, in a process of its own


class EnoughError(Exception):
    """The requested number of steps is done."""


@dataclass
class Clock:
    """Reports each step to the parent process."""

    steps: int
    started: float = 0.0
    seen: int = 0

    def __call__(self, loss: float) -> None:
        """Record that a step has ended."""
        seconds = time.perf_counter() - self.started
        say({"seconds": seconds, "loss": loss, "peak": peak_memory()})
        if not self.seen:
            reset_peak_memory()
        self.seen += 1
        if self.seen > self.steps:
            raise EnoughError
        self.started = time.perf_counter()


def say(told: dict[str, Any]) -> None:
    print(f"\n@{json.dumps(told)}", flush=True)


def peak_memory() -> int:
    """The peak memory since the last reset, in bytes: the GPU's if there is one, else the process's."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def reset_peak_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def child(variant: str, folder: Path, steps: int) -> None:
    """Train the run in *folder* as *variant*, for *steps* steps after the first."""
    from dpo_hub.runs.run import Run
    from dpo_hub.training.policy import load_base, quiet

    quiet()
    run, clock = Run.open(folder), Clock(steps)
    if variant == "loaded":
        model, _ = load_base(run.recipe.model)
        sum(parameter.sum() for parameter in model.parameters())
        reset_peak_memory()
        say({"peak": peak_memory(), "matmul": matmul_ceiling()})
        return
    try:
        if variant == "ours":
            from dpo_hub.training.train import train

            train(run, lambda metrics, _steps: clock(metrics["loss"]))
        else:
            train_with_trl(run, variant, clock)
    except EnoughError:
        pass


def train_with_trl(run: Any, variant: str, clock: Callable[[float], None]) -> None:
    """Train with TRL's own trainer; the tuned variant also saves its reference log-probabilities beside the run."""
    import numpy as np
    from transformers import PrinterCallback, TrainerCallback
    from trl import DPOTrainer

    from dpo_hub.training import trainer as ours
    from dpo_hub.training.policy import load_base
    from dpo_hub.training.reference import _name

    class Steps(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if "loss" in kwargs["logs"]:
                clock(kwargs["logs"]["loss"])

    args = ours._arguments(run.recipe, run.path / "checkpoints")
    args.activation_checkpointing = args.gradient_checkpointing = variant == "default"
    args.precompute_ref_log_probs = variant == "tuned"
    model, tokenizer = load_base(run.recipe.model)
    trainer = DPOTrainer(
        model=model,
        args=args,
        train_dataset=ours._dataset(run.pairs("train")),
        eval_dataset=ours._dataset(run.pairs("held_out")),
        processing_class=tokenizer,
        peft_config=ours._lora(run.recipe),
        callbacks=[Steps()],
    )
    trainer.remove_callback(PrinterCallback)
    if variant == "tuned":
        rows = [row for split in (trainer.train_dataset, trainer.eval_dataset) for row in split]
        by_name = {_name(row): (row["ref_chosen_logps"], row["ref_rejected_logps"]) for row in rows}
        np.save(run.path / "reference.npy", np.array([by_name[name] for name in sorted(by_name)]))
    trainer.train()


def matmul_ceiling() -> float:
    """The device's matrix multiplication speed, in FLOP/s, in the dtype used for training."""
    import torch

    from dpo_hub.training.policy import device, dtype

    size, rounds = (8192, 50) if device().type == "cuda" else (2048, 5)
    one, other = (torch.randn(size, size, device=device(), dtype=dtype()) for _ in range(2))

    def wait() -> None:
        if device().type == "cuda":
            torch.cuda.synchronize()

    one @ other
    wait()
    started = time.perf_counter()
    for _ in range(rounds):
        one @ other
    wait()
    return 2 * size**3 * rounds / (time.perf_counter() - started)


# All ways, in turns


def turn(variant: str, folder: Path, steps: int, *options: str) -> list[dict[str, Any]]:
    """What one variant reports of its steps, including the first."""
    command = [sys.executable, __file__, "--child", variant, str(folder), str(steps), *options]
    environment = os.environ | {"DPO_HUB_HOME": str(folder.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    told = [json.loads(line[1:]) for line in done.stdout.splitlines() if line.startswith("@")]
    if done.returncode or not told:
        raise SystemExit(f"{variant} ended early ({done.returncode}):\n{done.stderr[-2000:]}")
    return told


def measure(case: Case, steps: int, turns: int, args: argparse.Namespace) -> dict[str, Any]:
    """Run the three variants in turns on *case*."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        runs = prepare(case, home, steps + 1, args.spread)
        (loaded,) = turn("loaded", runs["ours"], 0)
        told: dict[str, list[list[dict[str, Any]]]] = {variant: [] for variant in VARIANTS}
        for number in range(turns):
            for variant in VARIANTS if number == 0 else VARIANTS[1:]:
                told[variant].append(turn(variant, runs[variant], steps, *["--keep-freed"] * args.keep_freed))
        (kept,) = (home / "ours" / "cache" / "reference").glob("*.npy")
        logp_diff = np.abs(np.load(kept) - np.load(runs["tuned"] / "reference.npy")).max()

    median = {
        name: statistics.median(sum(step["seconds"] for step in one[1:]) / steps for one in ways)
        for name, ways in told.items()
    }
    above = {
        name: max(step["peak"] for one in ways for step in one[1:]) - loaded["peak"] for name, ways in told.items()
    }
    steps_of = {name: [step["loss"] for step in ways[0]] for name, ways in told.items()}
    return asdict(case) | {
        "seconds_a_step": {name: round(seconds, 3) for name, seconds in median.items()},
        "ratio_vs_tuned": round(median["tuned"] / median["ours"], 2),
        "ratio_vs_default": round(median["default"] / median["ours"], 2),
        "memory_mb": {name: peak >> 20 for name, peak in above.items()},
        "memory_ratio": round(above["ours"] / above["tuned"], 2),
        "max_abs_logp_diff": float(logp_diff),
        "max_abs_loss_diff": max(abs(a - b) for a, b in zip(steps_of["tuned"], steps_of["ours"], strict=True)),
        "matmul_gflops": round(loaded["matmul"] / 1e9),
    }


def main() -> None:
    """Measure the cases that this machine can run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn of one counted step")
    parser.add_argument("--steps", type=int, default=4, help="counted steps a turn")
    parser.add_argument("--turns", type=int, default=3, help="turns of each way but TRL as it comes, which has one")
    parser.add_argument("--spread", type=float, default=0.8, help="standard deviation of the logarithm of lengths")
    parser.add_argument(
        "--case", action="append", choices=[case.name for case in CASES], help="only this one; may be repeated"
    )
    parser.add_argument("--keep-freed", action="store_true", help="keep freed memory in TRL's ways too, as ours does")
    parser.add_argument("--chart", type=Path, metavar="PNG", help="draw the seconds of a step")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        variant, folder, steps = args.child
        if args.keep_freed:
            from dpo_hub.training.memory import keep_freed_memory

            keep_freed_memory()
        return child(variant, Path(folder), int(steps))
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    steps, turns = (1, 1) if args.quick else (args.steps, args.turns)
    cases = []
    for case in CASES:
        if case.device == device and (not args.case or case.name in args.case):
            cases.append(measure(case, steps, turns, args))
            if not args.json:
                tell(cases[-1])
    if args.json:
        print(json.dumps({"cases": cases}, indent=2))
    if args.chart:
        draw(cases, args.chart)
    return None


def tell(case: dict[str, Any]) -> None:
    """Print one case as text."""
    seconds = "  ".join(f"{name} {value:.2f} s" for name, value in case["seconds_a_step"].items())
    memory = "  ".join(f"{name} {value} MB" for name, value in case["memory_mb"].items())
    print(
        f"{case['name']}: {seconds} a step\n"
        f"  {case['ratio_vs_tuned']} × tuned, {case['ratio_vs_default']} × default\n"
        f"  memory above the model {memory}: {case['memory_ratio']} × tuned\n"
        f"  log-probabilities differ by {case['max_abs_logp_diff']:.1e}, losses by {case['max_abs_loss_diff']:.1e}",
        flush=True,
    )


def draw(cases: list[dict[str, Any]], file: Path) -> None:
    """Draw the time of a step in each variant, relative to ours."""
    from matplotlib import pyplot

    colours = {"default": "#c9ced6", "tuned": "#8a94a6", "ours": "#e8590c"}
    labels = {"default": "TRL as it comes", "tuned": "TRL tuned", "ours": "dpo_hub"}
    figure, axes = pyplot.subplots(figsize=(8, 0.9 + 0.85 * len(cases)), layout="constrained")
    for place, variant in enumerate(VARIANTS):
        seconds = [case["seconds_a_step"][variant] for case in cases]
        lengths = [value / case["seconds_a_step"]["ours"] for value, case in zip(seconds, cases, strict=True)]
        rows = [row + 0.27 * (place - 1) for row in range(len(cases))]
        bars = axes.barh(rows, lengths, 0.25, color=colours[variant], label=labels[variant])
        axes.bar_label(bars, [f"{value:.2g} s" if value < 10 else f"{value:.0f} s" for value in seconds], padding=4)
    axes.set_yticks(range(len(cases)), [case["name"] for case in cases])
    axes.invert_yaxis()
    axes.set_xlabel("time of a training step, dpo_hub = 1")
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(file, dpi=160)


if __name__ == "__main__":
    main()
