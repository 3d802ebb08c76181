"""How long `examine` takes on very many pairs, and how much memory it needs.

    python benchmarks/doctor.py --pairs 100000

The pairs are synthetic (prompts of 20 words, replies of 50), some have planted problems to be found, and all are in a
file as in normal use. `--template` begins every prompt with the same words, which is hardest on the search for near
duplicates.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from random import Random

from dpo_hub.preferences import Preferences
from dpo_hub.preferences.doctor import examine
from dpo_hub.preferences.pairfile import Draft, PairFile, write_pairs

PLANTED = 100
"""Among this many pairs, one is an exact duplicate, one a near duplicate, and one has the opposite label."""
TEMPLATE = "please answer the following question as well as you can".split()


def made_up(pairs: int, *, seed: int, template: bool) -> Iterator[Draft]:
    """Make *pairs* pairs, 3 in every `PLANTED` with a planted problem."""
    random = Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(random.choices(letters, k=random.randint(2, 9))) for _ in range(20_000)]
    weights = [1 / rank for rank in range(1, len(vocabulary) + 1)]

    def text(count: int) -> str:
        return " ".join(random.choices(vocabulary, weights, k=count)).capitalize() + "."

    earlier = Draft(0, text(20), text(50), text(50))
    for row in range(1, pairs + 1):
        match row % PLANTED:
            case 1:
                yield earlier._replace(row=row)
            case 2:
                yield Draft(row, earlier.prompt, f"{earlier.chosen} Indeed!", earlier.rejected)
            case 3:
                yield Draft(row, earlier.prompt, earlier.rejected, earlier.chosen)
            case _:
                prompt = f"{' '.join(TEMPLATE)} {text(10)}" if template else text(20)
                earlier = Draft(row, prompt, text(50), text(50))
                yield earlier


def main() -> None:
    """Make the pairs, examine them, and print what was found, the seconds and the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--template", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryFile() as file:
        write_pairs(made_up(asked.pairs, seed=asked.seed, template=asked.template), file)
        before = _peak()
        start, busy = time.perf_counter(), time.process_time()
        findings = examine(Preferences("made up", "prompt, chosen, rejected", PairFile(file)))
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
    for finding in findings:
        print(f"{finding.severity:6} {finding.message}")
    print(f"{asked.pairs:,} pairs: {seconds:.1f} s ({busy:.1f} s of one core)")
    print(f"Peak memory: {_peak():,.0f} MiB, {before:,.0f} MiB of it before")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
