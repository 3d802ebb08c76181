"""Record how runs go, good and bad, for the tests of `dpo_hub.runs.health`: tests/runs/series/*.json.

Each is a real training of the demo's model. Good ones are the five applications with the demo's recipe; in the others
one thing is wrong. Figures are rounded to six significant digits, and the texts of sampled replies are left out.

    python scripts/record_health_series.py            all of them, some ten minutes on two CPU cores
    python scripts/record_health_series.py swapped    those that are named
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dpo_hub.demo import FILES
from dpo_hub.demo.shop import USES
from dpo_hub.errors import ModelError
from dpo_hub.preferences import read_preferences, split_pairs
from dpo_hub.recipe import DEMO_RECIPE, Recipe
from dpo_hub.runs.run import Run

SERIES = Path(__file__).parents[1] / "tests" / "runs" / "series"
BAD: dict[str, dict[str, Any]] = {
    "swapped": {},
    "learning-rate-x100": {"learning_rate": 100 * DEMO_RECIPE.learning_rate},
    "learning-rate-0": {"learning_rate": 0.0},
    "one-pair": {"batch_size": 1, "epochs": 0.5},
    "displaced": {"beta": 0.1, "sft_weight": 0.0, "epochs": 3.0},
    "over-optimised": {"beta": 0.1, "sft_weight": 0.0, "learning_rate": 2e-2, "epochs": 3.0},
}
"""What is wrong with each bad run of the *tone* file; in `swapped` it is the labels of the pairs trained on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", choices=[[], *USES, *BAD])
    names = parser.parse_args().name or [*USES, *BAD]
    from dpo_hub.training.policy import quiet

    quiet()
    SERIES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            recipe = Recipe.for_model(**BAD.get(name, {}))
            file = FILES / f"{name if name in USES else 'tone'}.csv"
            run = Run.create(read_preferences(_swapped(file, recipe, folder) if name == "swapped" else file), recipe)
            (SERIES / f"{name}.json").write_text(json.dumps(_trained(run)) + "\n", encoding="utf-8")
            print(name, flush=True)


def _swapped(file: Path, recipe: Recipe, folder: str) -> Path:
    """A copy of *file* in which the pairs that *recipe* trains on are the wrong way round."""
    pairs = read_preferences(file).pairs
    splits = split_pairs(pairs, recipe.held_out, seed=recipe.seed)
    path = Path(folder) / file.name
    with file.open(encoding="utf-8", newline="") as source, path.open("w", encoding="utf-8", newline="") as target:
        header, *rows = csv.reader(source)
        at = [header.index(part) for part in ("prompt", "chosen", "rejected")]
        ordered = [[row[place] for place in at] for row in rows]
        turned = [
            [p, r, c] if split == "train" else [p, c, r] for (p, c, r), split in zip(ordered, splits, strict=True)
        ]
        csv.writer(target).writerows([["prompt", "chosen", "rejected"], *turned])
    return path


def _trained(run: Run) -> dict[str, Any]:
    """Train, and return what there is to see of it, a list for each figure."""
    from dpo_hub.training.train import train

    steps = []
    try:
        train(run, lambda _metrics, total: steps.append(total))
    except ModelError as error:  # a broken run ends before its end; what it logged is what is wanted
        print(error)
    evaluations = [{k: v for k, v in point.items() if k != "replies"} for point in run.evaluations]
    return {
        "recipe": asdict(run.recipe),
        "total": steps[0],
        "steps": _columns(run.metrics),
        "evaluations": _columns(evaluations),
    }


def _columns(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    lines = list(lines)
    return {name: [_rounded(line[name]) for line in lines] for name in (lines[0] if lines else {})}


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


if __name__ == "__main__":
    main()
