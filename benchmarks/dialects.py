"""How often are polluted CSV files read correctly without knowing their dialect, and how fast?

Writes small preference tables like those in real use (four delimiters, two ways to escape quotes, two line ends,
preambles, footers, stray quotes, ragged rows, no header), in UTF-8, from a seed. Each reader gets the file and guesses;
only ours is given the possible column names. A file counts if every row that can be recovered comes back, cell for cell
and in order; what becomes of the rows beside them (a footer, a damaged row) does not matter. pandas skips bad lines and
DuckDB ignores errors and fills short rows, so that one bad row is not held against them.

    python -m benchmarks.dialects --files 400
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import clevercsv
import duckdb
import pandas as pd

from dpo_hub.preferences.files.delimited import read_delimited
from dpo_hub.preferences.files.text import open_text

NAMES = ["prompt", "chosen", "rejected"]
WORDS = "the order is late; we're sorry, it's on its way: please wait | thanks, café — don't worry (5 days)".split()
Table = list[list[str]]


def prose(random_: random.Random, most: int) -> str:
    """Return up to *most* words with the punctuation that confuses readers."""
    words = random_.choices(WORDS, k=random_.randint(2, most))
    if random_.random() < 0.25:
        words.insert(random_.randrange(len(words)), 'said "hello, you" and')
    if random_.random() < 0.25:
        words.insert(random_.randrange(1, len(words)), "\n- one\n- two, and")
    return " ".join(words).strip().capitalize() + random_.choice(".?!")


def clean(random_: random.Random) -> tuple[list[str], Table, str]:
    """Return a clean file, row by row, with its table and its delimiter."""
    table = [[prose(random_, 15), prose(random_, 40), prose(random_, 40)] for _ in range(random_.randint(3, 40))]
    delimiter, doubled = random_.choice(",,;\t|"), random_.random() < 0.75
    escape = {} if doubled else {"doublequote": False, "escapechar": "\\"}
    quoting = random_.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    end = random_.choice(["\n", "\r\n"])
    rows = []
    for cells in [NAMES, *table]:
        file = io.StringIO(newline="")
        csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end, **escape).writerow(cells)
        rows.append(file.getvalue())
    return rows, table, delimiter


def polluted(random_: random.Random, mess: str) -> tuple[str, Table]:
    """Return a file with *mess* in it, and the rows that any reader could recover."""
    rows, table, delimiter = clean(random_)
    at = random_.randint(1, len(table))
    match mess:
        case "preamble":
            rows[:0] = ["Exported on 3 May, by me\n", "\n"]
        case "footer":
            rows += ["\n", "Total: many rows, all good\n"]
        case "no header":
            rows = rows[1:]
        case "stray quote":
            rows[at] = delimiter.join(['A 5" screen', "It's good.", "No."]) + "\n"
            table[at - 1] = ['A 5" screen', "It's good.", "No."]
        case "open quote":
            rows[at] = delimiter.join(['"Never mind', "It's good.", "No."]) + "\n"
            table.pop(at - 1)
        case "short row":
            rows[at] = f"Only this.{delimiter}And that.\n"
            table.pop(at - 1)
        case "long row":
            rows[at] = delimiter.join(["One.", "Two.", "Three.", "Four."]) + "\n"
            table.pop(at - 1)
        case "trailing delimiters":
            rows = [row.rstrip("\r\n") + delimiter * 2 + "\n" for row in rows]
        case "mixed line ends":
            rows = [row.rstrip("\r\n") + random_.choice(["\n", "\r\n"]) for row in rows]
    return "".join(rows), table


def ours(path: Path) -> Table:
    with path.open("rb") as file:
        table = read_delimited(open_text(file)[0], known=NAMES.__contains__)
        return [list(row.values()) for _, row in table.rows if isinstance(row, dict)]


def sniffer(path: Path) -> Table:
    with path.open(encoding="utf-8", newline="") as file:
        dialect = csv.Sniffer().sniff(file.read(1 << 17))
        file.seek(0)
        return list(csv.reader(file, dialect))


def pandas(path: Path) -> Table:
    options = {"header": None, "dtype": str, "keep_default_na": False, "on_bad_lines": "skip"}
    frame = pd.read_csv(path, sep=None, engine="python", **options)
    return [[str(cell) for cell in row] for row in frame.to_numpy().tolist()]


def clever(path: Path) -> Table:
    return [list(row) for row in clevercsv.read_table(str(path), encoding="utf-8")]


def duck(path: Path) -> Table:
    options = "all_varchar=true, ignore_errors=true, null_padding=true, parallel=false, header=false"
    found = duckdb.sql(f"SELECT * FROM read_csv('{path}', {options})").fetchall()
    return [["" if cell is None else cell for cell in row] for row in found]


READERS: dict[str, Callable[[Path], Table]] = {
    "dpo_hub": ours,
    "csv.Sniffer": sniffer,
    "pandas": pandas,
    "clevercsv": clever,
    "DuckDB": duck,
}
MESSES = (
    "clean",
    "preamble",
    "footer",
    "no header",
    "stray quote",
    "open quote",
    "short row",
    "long row",
    "trailing delimiters",
    "mixed line ends",
)


def right(read: Callable[[Path], Table], path: Path, table: Table) -> bool:
    """Whether the rows of *table* come back in order, cell for cell; blank cells after the third do not count."""
    try:
        found = iter([cells[:3] for cells in read(path) if len(cells) >= len(NAMES) and not any(cells[3:])])
    except Exception:  # noqa: BLE001  # a reader that gives up, for whatever reason, has not read the file
        return False
    return all(any(cells == row for row in found) for cells in table)


def main() -> None:
    """Write the files, read each with every reader, and print the shares and times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    random_ = random.Random(options.seed)
    hits: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: Counter[str] = Counter()
    count: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pairs.csv")
        for place in range(options.files):
            mess = MESSES[place % len(MESSES)]
            text, table = polluted(random_, mess)
            path.write_bytes(text.encode())
            count[mess] += 1
            for name, read in READERS.items():
                started = time.perf_counter()
                hits[name][mess] += right(read, path, table)
                seconds[name] += time.perf_counter() - started
    print("share of files right".ljust(22) + "".join(name.rjust(13) for name in READERS))
    for mess in MESSES:
        print(mess.ljust(22) + "".join(f"{hits[name][mess] / max(1, count[mess]):13.0%}" for name in READERS))
    print("all".ljust(22) + "".join(f"{hits[name].total() / options.files:13.0%}" for name in READERS))
    print("time, ours = 1".ljust(22) + "".join(f"{seconds[name] / seconds['dpo_hub']:13.1f}" for name in READERS))


if __name__ == "__main__":
    main()
