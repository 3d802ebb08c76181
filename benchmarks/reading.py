"""How long reading takes, and how much memory, compared with other table readers, each in a separate process.

    python benchmarks/reading.py            # 100,000 and 500,000 pairs: CSV with line breaks in cells, and JSON Lines
    python benchmarks/reading.py --hostile  # files that are meant to exhaust the machine

Times are of whole processes, including imports. `dpo_hub` turns the file into normalised pairs in Parquet, `datasets`
into its Arrow cache, rebuilt each time, pandas into a frame in memory, DuckDB into Parquet. The files are generated
from a seed, in a folder that is kept for the next run (`--folder`).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

READERS = {
    "dpo_hub": "from dpo_hub.preferences import read_preferences; print(len(read_preferences(path).pairs))",
    "datasets": "import datasets; datasets.disable_progress_bars(); kind = 'csv' if path.endswith('csv') else 'json'; "
    "print(len(datasets.load_dataset(kind, data_files=path, split='train', cache_dir=folder)))",
    "pandas": "import pandas; "
    "print(len(pandas.read_csv(path) if path.endswith('csv') else pandas.read_json(path, lines=True)))",
    "duckdb": "import duckdb; read = 'read_csv' if path.endswith('csv') else 'read_json'; "
    "duckdb.sql(f\"copy (select * from {read}('{path}')) to '{folder}/pairs.parquet' (format parquet)\"); "
    "print(duckdb.sql(f\"select count(*) from '{folder}/pairs.parquet'\").fetchall()[0][0])",
}
MEASURE = """
import resource, sys
path, folder = sys.argv[1:]
{code}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def texts(pairs: int) -> Iterator[list[str]]:
    """Prompts of 20 words and replies of 50, including commas, line breaks, quotes and accents."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5000)]

    def text(count: int) -> str:
        said = " ".join(draw.choices(words, k=count))
        if draw.random() < 0.5:
            said = said.replace(" ", ", ", 3)
        if draw.random() < 0.6:
            said = f"{said[:40]}\n{said[40:]}"
        if draw.random() < 0.1:
            said = f'He said "{said[:20]}" and {said[20:]}'
        return f"{said} é—ü" if draw.random() < 0.1 else said

    return ([text(20), text(50), text(50)] for _ in range(pairs))


def files(folder: Path, pairs: int) -> list[Path]:
    """The same pairs as CSV and as JSON Lines."""
    table, lines = folder / f"pairs-{pairs}.csv", folder / f"pairs-{pairs}.jsonl"
    if not lines.exists():
        columns = ["prompt", "chosen", "rejected"]
        with table.open("w", newline="", encoding="utf-8") as one, lines.open("w", encoding="utf-8") as other:
            writer = csv.writer(one)
            writer.writerow(columns)
            for row in texts(pairs):
                writer.writerow(row)
                other.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n")
    return [table, lines]


def measure(code: str, path: Path) -> tuple[float, int, str]:
    """The seconds, peak memory in MB, and output of one process."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        began = time.perf_counter()
        command = [sys.executable, "-c", MEASURE.format(code=code), str(path), scratch]
        ran = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "TMPDIR": scratch}
        )
        seconds = time.perf_counter() - began
    if ran.returncode:
        raise SystemExit(ran.stderr)
    *printed, memory = ran.stdout.split("\n")[:-1]
    return seconds, int(memory), " ".join(printed)


def side_by_side(folder: Path, sizes: list[int], runs: int) -> None:
    """Print seconds, memory, and the ratio to `datasets`; the readers take turns."""
    print(f"{'file':<22}{'reader':<10}{'seconds':>9}{'of datasets':>13}{'peak MB':>9}")
    for path in (path for size in sizes for path in files(folder, size)):
        taken: dict[str, list[tuple[float, int, str]]] = {name: [] for name in READERS}
        for _ in range(runs):
            for name, code in READERS.items():
                taken[name].append(measure(code, path))
        usual = statistics.median(seconds for seconds, *_ in taken["datasets"])
        for name, all_runs in taken.items():
            seconds = statistics.median(seconds for seconds, *_ in all_runs)
            memory = max(memory for _, memory, _ in all_runs)
            print(f"{path.name:<22}{name:<10}{seconds:>9.2f}{seconds / usual:>13.2f}{memory:>9}")


def bomb(path: Path) -> None:
    """Gzip members of zeros, one after the other: 10 MB that unpack to 10 GB."""
    member = gzip.compress(b"\0" * 2**20, mtime=0)
    path.write_bytes(gzip.compress(b"prompt,chosen,rejected\n") + member * 10 * 2**10)


def rows_bomb(path: Path) -> None:
    """The same with valid rows."""
    member = gzip.compress(b"a,b,c\n" * 2**18, mtime=0)
    path.write_bytes(gzip.compress(b"prompt,chosen,rejected\n") + member * 6 * 2**10)


def one_line(head: bytes) -> Callable[[Path], None]:
    """A line of 1 GB that begins with *head*."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.write(head)
            for _ in range(2**10):
                file.write(b"a" * 2**20)

    return write


def wide(path: Path) -> None:
    """A table of 10,000 columns and 1,000 rows."""
    with path.open("w") as file:
        for _ in range(1_001):
            file.write(",".join(f"column{n}" for n in range(10_000)) + "\n")


HOSTILE = {
    "bomb.csv.gz": bomb,
    "rows-bomb.csv.gz": rows_bomb,
    "one-line.csv": one_line(b""),
    "one-line-quoted.csv": one_line(b'prompt,chosen,rejected\na,"'),
    "one-line.json": one_line(b'[{"prompt": "'),
    "wide.csv": wide,
}
TRIED = """
from dpo_hub.errors import DPOHubError
from dpo_hub.preferences import read_preferences
try:
    print(len(read_preferences(path).pairs), "pairs")
except DPOHubError as error:
    print(str(error).replace(path, path.rpartition("/")[2]))
"""


def hostile(folder: Path) -> None:
    """Print how `dpo_hub` fares with files that are meant to exhaust the machine."""
    for name, write in HOSTILE.items():
        path = folder / name
        write(path)
        size = path.stat().st_size / 2**20
        seconds, memory, told = measure(TRIED, path)
        print(f"{name} ({size:,.0f} MB): {seconds:.1f} s, {memory:,} MB\n  {told}")
        path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[100_000, 500_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "dpo_hub-reading")
    parser.add_argument("--hostile", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(exist_ok=True)
    if asked.hostile:
        hostile(asked.folder)
    else:
        side_by_side(asked.folder, asked.pairs, asked.runs)


if __name__ == "__main__":
    main()
