"""Which settings teach a real model something, and what they cost: SmolLM2, five uses, one setting changed at a time.

    python benchmarks/defaults.py [--quick] [--json] [--results FILE] [--picture PNG]

Each row is one training on the first 180 pairs of the use's own file, a third of them held out; the replies to those
prompts are measured before and after.
`--quick` takes one use and a few rows. What is in FILE already is not trained again, so a long table may be made in
parts: benchmarks/defaults.jsonl has the rows of docs/benchmarks.md, the first ten rounded as there. Settings of other
tools are their documented examples for DPO with LoRA (docs/benchmarks.md says where they stand), trained by this
package: the comparison is of settings, and not of implementations.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dpo_hub.comparison.duet import Duet
from dpo_hub.comparison.evaluation import NEW_TOKENS
from dpo_hub.demo.assistant import CONCISENESS, TONE, USES, Use
from dpo_hub.demo.guards import distance
from dpo_hub.demo.showcase import compare
from dpo_hub.preferences import read_preferences
from dpo_hub.recipe import SMOLLM2, Recipe
from dpo_hub.runs.run import Run
from dpo_hub.training.policy import quiet
from dpo_hub.training.smollm2 import resolve_name
from dpo_hub.training.train import train

PEER_DEFAULTS = {"batch_size": 8, "sft_weight": 0.0}
"""What others have unless they say otherwise: 8 pairs an update, and no likelihood term."""
PEERS: dict[str, dict[str, Any]] = {
    "TRL": PEER_DEFAULTS | {"learning_rate": 1e-6, "epochs": 3.0},
    "LLaMA-Factory, YAML": PEER_DEFAULTS | {"learning_rate": 5e-6, "epochs": 3.0, "lora_r": 8, "lora_alpha": 16},
    "LLaMA-Factory, Board": PEER_DEFAULTS
    | {"learning_rate": 5e-5, "epochs": 3.0, "batch_size": 16, "lora_r": 8, "lora_alpha": 16},
    "Unsloth": PEER_DEFAULTS | {"learning_rate": 5e-6, "epochs": 3.0, "lora_r": 64, "lora_alpha": 64},
    "H2O LLM Studio": PEER_DEFAULTS
    | {"learning_rate": 1e-4, "beta": 0.2, "epochs": 1.0, "batch_size": 2, "lora_r": 4, "lora_alpha": 16},
    "Axolotl": PEER_DEFAULTS | {"learning_rate": 2e-4, "epochs": 4.0, "lora_r": 32, "lora_alpha": 16},
}
CHANGES: dict[str, dict[str, Any]] = {
    "8 pairs an update": {"batch_size": 8},
    "likelihood 0.2": {"sft_weight": 0.2},
    "β 0.3": {"beta": 0.3},
    "rank 4": {"lora_r": 4, "lora_alpha": 8},
}
RATES = (1e-3, 5e-5, 1e-5)
FEW = 96
"""Pairs of the shortest file, of which half are held out: a few dozens to train on."""


@dataclass(frozen=True)
class Case:
    """A row of the table: a use, and what is changed of the default recipe."""

    use: str
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    pairs: int = 180
    held_out: float = 1 / 3

    @property
    def key(self) -> str:
        return f"{self.use}: {self.name}"


def cases(quick: bool) -> Iterator[Case]:
    """The rows, the most telling first."""
    first = CONCISENESS.name
    yield Case(first, "default")
    yield from (Case(first, name, peer) for name, peer in PEERS.items() if not quick or peer["epochs"] == 1)
    yield Case(first, "default, few pairs", pairs=FEW, held_out=0.5)
    if quick:
        return
    yield from (Case(first, f"rate {rate:g}", {"learning_rate": rate}) for rate in RATES)
    yield from (Case(first, name, change) for name, change in CHANGES.items())
    yield from (Case(use, "default") for use in USES if use != first)
    yield from (Case(TONE.name, name, change) for name, change in CHANGES.items())


def measure(case: Case, model: str) -> dict[str, Any]:
    """Train a case and say what came of it."""
    use, began = USES[case.use], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        preferences = read_preferences(_shortened(use, case.pairs, Path(folder)))
        settings = {"evaluations": 0, "held_out": case.held_out} | case.settings
        recipe = Recipe.for_model(model, pairs=len(preferences.pairs), **settings)
        run = Run.create(preferences, recipe)
    trained = train(run)
    took = time.monotonic() - began
    run.write("evaluation.json", json.dumps(trained.evaluation))
    duet = Duet.of(trained.model, trained.tokenizer)
    outcome = compare(use, run, duet)
    assert outcome.guards
    prompts = [pair.prompt for pair in run.pairs("held_out")]
    written = duet.sample_ids(prompts, temperature=None, max_new_tokens=NEW_TOKENS)
    return {
        **asdict(case),
        "before": outcome.before,
        "after": outcome.after,
        "after_interval": outcome.after_interval,
        "prompts": outcome.prompts,
        "learning_rate": recipe.learning_rate,
        "epochs": recipe.epochs,
        "steps": int(run.last_metrics["step"]),
        "margin": trained.evaluation["margin"],
        "reward_accuracy": trained.evaluation["reward_accuracy"],
        "kl": distance(duet, written),
        "surprise": outcome.guards.surprise[1] / outcome.guards.surprise[0],
        "repeats": outcome.guards.repeats[1] - outcome.guards.repeats[0],
        "general": outcome.guards.kept,
        "details": outcome.details,
        "seconds": took,
    }


def _measure_in_subprocess(case: Case, model: str) -> dict[str, Any]:
    """`measure`, with nothing left of it in memory afterwards."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=quiet) as process:
        return process.submit(measure, case, model).result()


def _shortened(use: Use, pairs: int, folder: Path) -> Path:
    """The first so many *pairs* of the use's file, as a file."""
    with use.file.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[: pairs + 1]
    path = folder / use.file.name
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    names = "use recipe rate steps measure KL margin accuracy surprise repeats general words".split()
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    for row in rows:
        low, high = row["after_interval"]
        cells = (
            row["use"],
            row["name"],
            f"{row['learning_rate']:.0e}".replace("e-0", "e-"),
            row["steps"],
            f"{row['before']:.0%} → {row['after']:.0%} ({low:.0%} to {high:.0%})",
            f"{row['kl']:.3f}",
            f"{row['margin']:.2f}",
            f"{row['reward_accuracy']:.0%}",
            f"× {row['surprise']:.2f}",
            f"{100 * row['repeats']:+.1f}",
            f"{row['general']:.3f}",
            "{:.0f} → {:.0f}".format(*row["details"]["words a reply"]),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Gain in the use's measure against the distance gone for it, a panel for each use with several rows."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    uses = [use for use, count in Counter(row["use"] for row in rows).items() if count > 1]
    rows = [row for row in rows if row["use"] in uses]
    names = list(dict.fromkeys(row["name"] for row in rows))
    size = (3.6 * len(uses), 3.4)
    figure, axes = pyplot.subplots(1, len(uses), figsize=size, sharex=True, sharey=True, squeeze=False)
    points = {}
    for row in rows:
        axis, ours = axes[0][uses.index(row["use"])], row["name"] == "default"
        points[row["name"]] = axis.scatter(
            max(row["kl"] or 0, 1e-4),
            100 * (row["after"] - row["before"]),
            s=90 if ours else 30,
            marker="*" if ours else "o",
            color=mpl.colormaps["tab20"](names.index(row["name"]) % 20),
            zorder=3,
        )
    for axis, use in zip(axes[0], uses, strict=True):
        axis.set(title=use, xlabel="KL from the base model, nats a token", xscale="log")
        axis.grid(alpha=0.3)
    figure.legend(points.values(), points, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7)
    axes[0][0].set_ylabel("gain in the measure, points")
    figure.tight_layout()
    figure.savefig(path, dpi=110, bbox_inches="tight")


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    quiet()
    known: dict[str, dict[str, Any]] = {}
    if asked.results and asked.results.is_file():
        lines = map(json.loads, asked.results.read_text(encoding="utf-8").splitlines())
        known = {f"{row['use']}: {row['name']}": row for row in lines}
    model, rows = resolve_name(SMOLLM2), []
    for case in cases(asked.quick):
        row = known.get(case.key) or _measure_in_subprocess(case, model)
        if asked.results and case.key not in known:
            with asked.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        rows.append(row)
        print(table([row]).splitlines()[-1], file=sys.stderr, flush=True)
    if asked.picture:
        draw(rows, asked.picture)
    print(json.dumps({"rows": rows}, indent=2) if asked.json else table(rows))


if __name__ == "__main__":
    main()
