"""How long a sweep of two losses and three values of beta takes on the demo's tone file, run from the command line.

python benchmarks/sweep.py [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

from dpo_hub.demo import FILES
from dpo_hub.runs.run import all_runs

GRID = ("--beta", "0.05,0.1,0.3", "--loss", "sigmoid,ipo")
MEASURING = "measuring what the base model says"
"""The line in the log of a run that measures the reference."""


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["DPO_HUB_HOME"] = home
        command = ["sweep", str(FILES / "tone.csv"), *GRID, "--json"]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "dpo_hub", *command], capture_output=True, check=True)
        took = time.perf_counter() - began
        logs = [run.log.read_text(encoding="utf-8") for run in all_runs()]
    found = {"runs": len(logs), "seconds": took, "reference_measured": sum(MEASURING in log for log in logs)}
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print("{runs} runs: {seconds:.0f} s, the reference measured in {reference_measured} of them".format(**found))


if __name__ == "__main__":
    main()
