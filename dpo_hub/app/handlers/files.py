"""A visitor's preference files: saved, found, read, repaired and written.

A file's name is part of the page's URL: `demo:tone`, `hub:owner/name`, or the id of an upload.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

from ...demo import FILES
from ...demo.shop import USES
from ...errors import PreferencesError, explaining_disk_full
from ...preferences import Preferences, read_preferences
from ...preferences.files import open_table
from ...preferences.layouts.columns import is_known
from ...preferences.pairs import pluralise
from ..limits import limits

SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet", ".gz")
DEMO, HUB = "demo:", "hub:"
HUB_MEMORY = 600
"""Seconds for which a dataset on the Hub is assumed to be unchanged since it was read."""
_ADDRESS = re.compile(r"(https?://)?(huggingface\.co|hf\.co)/datasets/")
ID = re.compile(r"[0-9a-f]{16}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+(/[\w.-]+)?)?", re.ASCII)
_OPTION = "--map "
"""The option before a mapping in messages for the command line, removed for the page."""


@dataclass(frozen=True)
class Source:
    """A preference file: its name, where it is (a path, or a dataset's id), and which column is which.

    `note` says how a file that was made here came about; `written` means that pairs can be added to it on the page.
    """

    name: str
    where: str
    mapping: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    written: bool = False


def demo_files() -> dict[str, str]:
    """Title and name of each preference file that ships with the package."""
    return {use.title: f"{DEMO}{use.name}" for use in USES.values()}


def hub_file(written: str) -> str:
    """The file name of the dataset that a visitor typed: its id, or its URL on the Hub."""
    return f"{HUB}{_ADDRESS.sub('', written.strip()).strip('/')}"


def save_upload(shelf: Path, upload: Path) -> str:
    """Save an upload, and remove the server's temporary copy.

    Raises:
        PreferencesError: its file type is not supported, or it is gone.
        DiskFullError: there is no room.
    """
    try:
        return save_copy(shelf, upload)
    except FileNotFoundError as error:
        raise PreferencesError(f"{upload.name} did not arrive. Upload it again.") from error
    finally:
        upload.unlink(missing_ok=True)


def save_copy(shelf: Path, upload: Path, name: str = "", *, note: str = "") -> str:
    """Save a copy of *upload* in *shelf*, and return its id; *name*, by default the file's, is only for display.

    Raises:
        PreferencesError: its file type is not supported, or the visitor has too many files.
        DiskFullError: there is no room.
    """
    name = (name or upload.name).replace("\\", "/").rpartition("/")[2]
    suffixes = [suffix.lower() for suffix in Path(name).suffixes[-2:]]
    if not suffixes or suffixes[-1] not in SUFFIXES:
        raise PreferencesError(f"{name}: files of this kind are not read. Use one of {', '.join(SUFFIXES)}.")
    ending = "".join(suffix for suffix in suffixes if suffix in SUFFIXES)
    folder = new_folder(shelf)
    with explaining_disk_full(shelf):
        shutil.copyfile(upload, folder / f"file{ending}")
    save_about(folder, Source(name, "", note=note))
    return folder.name


def new_folder(shelf: Path) -> Path:
    most, there = limits().files, shelf / "files"
    if most is not None and there.is_dir() and len(list(there.iterdir())) >= most:
        raise PreferencesError(f"You have {most} files here, and more are not kept for one visitor.")
    folder = there / secrets.token_hex(8)
    with explaining_disk_full(shelf):
        folder.mkdir(parents=True)
    return folder


def map_columns(shelf: Path, file: str, mapping: Mapping[str, str]) -> str:
    """Save *mapping* with an upload; any other file is first made one. Returns the file's id.

    Raises:
        PreferencesError: there is no such file, or the visitor has too many files.
    """
    source = find(shelf, file)
    if not ID.fullmatch(file):
        here = Path(source.where).is_file()
        file = save_copy(shelf, Path(source.where), source.name) if here else new_folder(shelf).name
    save_about(shelf / "files" / file, replace(source, mapping=mapping))
    return file


def save_about(folder: Path, source: Source) -> None:
    """Save what is known of a file beside it; a dataset on the Hub has no file there."""
    about = {"name": source.name, "mapping": dict(source.mapping), "note": source.note, "written": source.written}
    if not any(folder.glob("file.*")):
        about["dataset"] = source.where
    aside = folder / f".{secrets.token_hex(4)}"
    with explaining_disk_full(folder):
        aside.write_text(json.dumps(about), encoding="utf-8")
        aside.replace(folder / "about.json")


def find(shelf: Path, file: str) -> Source:
    """Find the file that the URL calls *file*.

    Raises:
        PreferencesError: this visitor has no such file.
    """
    if file.startswith(DEMO) and (use := USES.get(file.removeprefix(DEMO))):
        return Source(f"{use.name}.csv", str(FILES / f"{use.name}.csv"))
    if file.startswith(HUB):
        dataset = _require_dataset(file.removeprefix(HUB))
        return Source(dataset, dataset)
    folder = shelf / "files" / file if ID.fullmatch(file) else None
    if not folder or not (folder / "about.json").is_file():
        raise PreferencesError("This file is not here any more. Upload it again.")
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    where = _require_dataset(about["dataset"]) if "dataset" in about else str(next(folder.glob("file.*"), folder))
    return Source(about["name"], where, about["mapping"], about.get("note", ""), about.get("written", False))


def _require_dataset(name: str) -> str:
    """Check that *name* can only be the name of a dataset on the Hub.

    Raises:
        PreferencesError: it might be the name of a file or folder.
    """
    if not _HUB_ID.fullmatch(name) or ".." in name or Path(name).exists():
        raise PreferencesError(f"{name!r} is not a dataset's name on the Hub. Write it as owner/name.")
    return name


def read(source: Source) -> Preferences:
    """Read the pairs of *source*; the last few files are cached.

    Raises:
        PreferencesError: it cannot be read; the message has the file's display name, and no folder.
    """
    return read_by(*key_of(source))


Key = tuple[str, str, tuple[int, ...], tuple[tuple[str, str], ...]]
"""What identifies the contents of a file: its name, where it is, a stamp of its version, and which column is which."""


def key_of(source: Source) -> Key:
    path = Path(source.where)
    status = path.stat() if path.is_file() else None
    stamp = (status.st_mtime_ns, status.st_size) if status else (int(time.time() / HUB_MEMORY),)
    return source.name, source.where, stamp, tuple(sorted(source.mapping.items()))


@lru_cache(4)
def read_by(name: str, where: str, _stamp: tuple[int, ...], mapping: tuple[tuple[str, str], ...]) -> Preferences:
    try:
        if most := limits().rows:
            _require_modest(where, most)
        found = read_preferences(where, mapping=dict(mapping) or None)
    except PreferencesError as error:
        said = str(error) if str(error).startswith(where) else f"{name}: {error}"
        raise PreferencesError(said.replace(_OPTION, "").replace(where, name)) from error
    return replace(found, source=name)


def _require_modest(where: str, most: int) -> None:
    with open_table(where, known=is_known) as table:
        if next(islice(table.rows, most, None), None):
            raise PreferencesError(
                f"It has more than {pluralise(most, 'row')}, the limit here. Take a part of it, or install dpo_hub "
                "on your own machine, where there is none."
            )


def downloadable(file: str, source: Source) -> bool:
    """Whether *file* is the visitor's own and stored here."""
    return bool(ID.fullmatch(file)) and Path(source.where).is_file()
