"""Reading a dataset from a Hub on this machine, with the real `datasets` in processes of their own."""

from __future__ import annotations

import io
import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .conftest import ADA, BOB, Python
from .loopback import Commit, Hub, Repo, serving

CONFIGS = b"""---
configs:
- config_name: en
  data_files:
  - {split: train, path: "en/train-*.parquet"}
  - {split: test, path: en/test.parquet}
- config_name: de
  data_files: de/*.parquet
---
"""
TEXT = {"dtype": "string", "_type": "Value"}
IMAGES = {"_type": "List", "feature": {"_type": "Image"}}
FEATURES = {"prompt": TEXT, "chosen": TEXT, "rejected": TEXT, "pictures": IMAGES}

READ = """
import json, sys
from dpo_hub import read_preferences
from dpo_hub.errors import DPOHubError

for source in sys.argv[1:]:
    try:
        read = read_preferences(source)
        prompts = [pair.prompt[0]["content"] for pair in read.pairs]
        chosen = [pair.chosen[0]["content"] for pair in read.pairs]
        told = {"prompts": prompts, "chosen": chosen, "rows": [pair.row for pair in read.pairs], "notes": read.notes}
        print(json.dumps(told | {"layout": read.layout, "source": read.source}))
    except DPOHubError as error:
        print(json.dumps({"error": str(error), "kind": type(error).__name__}))
"""
WITHOUT = "import sys; sys.modules['datasets'] = None\n"


def rows(about: str, count: int, **more: Any) -> list[dict[str, Any]]:
    numbers = range(1, count + 1)
    return [{"prompt": f"{about} {n}", "chosen": f"yes {n}", "rejected": f"no {n}", **more} for n in numbers]


def lines(about: str, count: int) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows(about, count)).encode()


def parquet(about: str, count: int, *, features: dict[str, Any] | None = None, **more: Any) -> bytes:
    table = pa.Table.from_pylist(rows(about, count, **more))
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def dataset(private: bool = False, gated: bool = False, **files: bytes) -> Repo:
    """A repository with *files*: `data__train_csv` is `data/train.csv`."""
    names = {name: re.sub("_(?=[a-z]+$)", ".", name.replace("__", "/")) for name in files}
    return Repo(private, [Commit("data", {names[name]: data for name, data in files.items()})], gated)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub with datasets of Ada's, and Bob, who has none."""
    csv = b'prompt,chosen,rejected\nwhy 1,"None",N/A\nwhy 2,"""yes"", 2",no\n'
    picture = [{"bytes": None, "path": "http://127.0.0.1:9/a.png"}, {"bytes": b"\x89PNG", "path": "b.png"}]
    languages = {
        "README.md": CONFIGS,
        "en/train-1.parquet": parquet("one", 2),
        "en/train-2.parquet": parquet("two", 2),
        "en/test.parquet": parquet("test", 1),
        "de/train.parquet": parquet("warum", 1),
    }
    datasets = {
        "ada/table": dataset(README_md=b"# A table\n", train_csv=csv),
        "ada/lines": dataset(data__train_jsonl=lines("train", 3), data__test_jsonl=lines("test", 2)),
        "ada/trials": dataset(dev_jsonl=lines("dev", 1), test_jsonl=lines("test", 2)),
        "ada/exam": dataset(test_jsonl=lines("test", 1)),
        "ada/languages": Repo(False, [Commit("data", languages)]),
        "ada/torn": Repo(False, [Commit("data", languages | {"en/train-2.parquet": b"PAR1, and no more of it"})]),
        "ada/pictures": dataset(train_parquet=parquet("see", 1, features=FEATURES, pictures=picture)),
        "ada/album": dataset(one_png=b"\x89PNG", two_png=b"\x89PNG"),
        "ada/code": dataset(code_py=b"raise SystemExit('run')\n"),
        "ada/nothing": dataset(README_md=b"# Nothing yet\n"),
        "ada/secret": dataset(private=True, train_csv=csv),
        "ada/asked": dataset(gated=True, train_csv=csv),
    }
    knows = Hub({ADA: "ada", BOB: "bob"}, datasets=datasets)
    with serving(knows):
        yield knows
    assert knows.unknown == []


def read(python: Python, *sources: str, token: str = "", before: str = "") -> list[dict[str, Any]]:
    """What reading each of *sources* gives, with nothing said on stderr and nobody asked but the Hub.

    Any other address would be asked of the Hub as a proxy, which keeps what it does not know.
    """
    proxy = {"http_proxy": python.endpoint, "https_proxy": python.endpoint, "no_proxy": "127.0.0.1"}
    alone = f"import os; os.environ.update({proxy})\n"
    done = python("-c", alone + before + READ, *sources, token=token)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def errors(python: Python, *sources: str, token: str = "") -> list[str]:
    told = read(python, *sources, token=token)
    assert {one.get("kind") for one in told} == {"PreferencesError"}, told
    messages = [one["error"] for one in told]
    assert all(message.startswith(f"{source}: ") for source, message in zip(sources, messages, strict=True))
    return [message.removeprefix(f"{source}: ") for source, message in zip(sources, messages, strict=True)]


def test_pairs_come_out_of_every_kind_of_file(hub: Hub, python: Python) -> None:
    """CSV, JSON Lines and Parquet give pairs, numbered by their place in the split, under the name that was given."""
    sources = ["ada/table", "ada/lines:test", "ada/languages:en/train"]
    table, several, parts = read(python, *sources)
    assert [told["source"] for told in (table, several, parts)] == sources
    assert {told["layout"] for told in (table, several, parts)} == {"one pair a row"}
    assert (table["rows"], table["prompts"]) == ([1, 2], ["why 1", "why 2"])
    assert (several["rows"], several["prompts"]) == ([1, 2], ["test 1", "test 2"])
    assert (parts["rows"], parts["prompts"]) == ([1, 2, 3, 4], ["one 1", "one 2", "two 1", "two 2"])
    assert table["notes"] == [f"Hub dataset, split train, commit {hub.datasets['ada/table'].head.oid[:7]}"]
    assert table["chosen"] == ["None", '"yes", 2'], "what pandas would take for a missing value is a reply"


def test_nothing_else_is_sent_or_kept(hub: Hub, python: Python) -> None:
    """Only the files of the split are sent, and the README, which alone is kept on the disk."""
    read(python, "ada/lines:test", "ada/languages:en/train")
    assert set(hub.sent) == {"data/test.jsonl", "README.md", "en/train-1.parquet", "en/train-2.parquet"}
    kept = [path.read_bytes() for path in python.home.rglob("*") if path.is_file() and path.name != "CACHEDIR.TAG"]
    assert set(filter(None, kept)) == {CONFIGS}


def test_the_split_is_train_or_the_only_one(python: Python) -> None:
    """Without a split named it is `train`, or the only one there is."""
    train, only = read(python, "ada/lines", "ada/exam")
    assert (train["prompts"][0], only["prompts"][0]) == ("train 1", "test 1")


def test_what_must_be_named_is_listed(python: Python) -> None:
    """Where a split or a config has to be named, or there is none of the name, the error lists them with an example."""
    assert errors(
        python, "ada/trials", "ada/lines:dev", "ada/languages", "ada/languages:fr/train", "ada/languages:en/dev"
    ) == [
        "It has 2 splits. Name one of validation, test, like this: ada/trials:validation",
        "It has no split 'dev'. Name one of train, test, like this: ada/lines:train",
        "It has 2 configs. Name one of en, de, like this: ada/languages:en/train",
        "It has no config 'fr'. Name one of en, de, like this: ada/languages:en/train",
        "It has no split 'dev'. Name one of train, test, like this: ada/languages:en/train",
    ]


def test_images_are_refused_unseen(hub: Hub, python: Python) -> None:
    """A dataset with images is refused by its columns' types: no image is fetched, and no file of images."""
    pictures, album = errors(python, "ada/pictures", "ada/album")
    assert pictures == "Its column 'pictures' holds images or other media, and only text can be trained on."
    assert album == "Its column 'image' holds images or other media, and only text can be trained on."
    assert set(hub.sent) == {"train.parquet"}


def test_what_may_not_be_read_says_what_to_do(hub: Hub, python: Python) -> None:
    """Unknown, private and gated datasets end in one sentence each, and no token is ever shown."""
    unknown, private, gated = errors(python, "ada/unknown", "ada/secret", "ada/asked")
    assert unknown == private
    assert "no" in unknown
    assert unknown.endswith("run: hf auth login")
    assert f"Ask for access at {hub.endpoint}/datasets/ada/asked" in gated
    assert errors(python, "ada/unknown", "ada/secret", "ada/asked", token=BOB) == [unknown, private, gated]
    (expired,) = errors(python, "ada/table", token="hf_canaryExpired")
    assert "run hf auth login" in expired
    assert "canary" not in expired
    assert hub.sent == []


def test_those_who_may_read_a_dataset_can(python: Python) -> None:
    """With the right token private and gated datasets are read like any other."""
    assert [told["rows"] for told in read(python, "ada/secret", "ada/asked", token=ADA)] == [[1, 2], [1, 2]]


def test_what_is_no_table_says_so(hub: Hub, python: Python) -> None:
    """A dataset made by a script, or without data, is told as such, and no script is run."""
    code, nothing = errors(python, "ada/code", "ada/nothing")
    assert "scripts are no longer supported" in code
    assert "doesn't contain any data files" in nothing
    assert f"{hub.endpoint}/datasets/ada/code/tree/main" in code


@pytest.mark.parametrize(("source", "told"), [("ada/languages", "answered 500"), ("ada/torn", "Parquet")])
def test_a_break_between_rows_is_one_line(hub: Hub, python: Python, source: str, told: str) -> None:
    """A server that fails at the second file, or a damaged file, is one line on stderr and exit code 2."""
    if source == "ada/languages":
        hub.broken.add("en/train-2.parquet")
    done = python("-m", "dpo_hub", "check", f"{source}:en/train")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"dpo-hub: {source}:en/train: .*{told}.*\n", done.stderr), done.stderr


def test_a_hub_out_of_reach_is_told_at_once(python: Python) -> None:
    """Nobody waits for attempts upon attempts when the Hub is out of reach from the start."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    (told,) = errors(replace(python, endpoint=endpoint), "ada/table")
    assert f"{endpoint}/datasets/ada/table cannot be reached" in told
    assert time.monotonic() - began < 15


def test_without_datasets_its_extra_is_named(python: Python) -> None:
    """Where `datasets` is not installed, the error is the command that installs it."""
    (told,) = read(python, "ada/table", before=WITHOUT)
    assert told["kind"] == "MissingExtraError"
    assert "-m pip install 'dpo_hub[train]'" in told["error"]


def test_the_command_line_reads_a_dataset(python: Python) -> None:
    """`check` reports on a dataset as on a file, with nothing on stderr."""
    done = python("-m", "dpo_hub", "check", "ada/lines", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert (report := json.loads(done.stdout))["pairs"] == 3, report
