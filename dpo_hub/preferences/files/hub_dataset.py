"""Streams the rows of a Hub dataset with `datasets`. Does not fetch anything that a row links to."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ...errors import DPOHubError, PreferencesError, explaining_disk_full, needing_extra
from ..table import Rows, Table, with_labels


def open_dataset(repo: str, wanted: str | None) -> Table:
    """Open the split *wanted* of the dataset *repo*: `train`, or `config/train`; by default `train` or the only one.

    Raises:
        PreferencesError: there is no such dataset, config or split, it cannot be read, or it contains media. Reading
            rows may also raise it.
        MissingExtraError: `datasets` is not installed.
    """
    # Otherwise the names of all opened datasets, even private ones, are sent to a server that is not the Hub.
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    with needing_extra("train"):
        import datasets
    # The Hub's client makes 6 attempts for each of these, over 23 s. The default, 20, means ten minutes of silence.
    datasets.config.STREAMING_READ_MAX_RETRIES = 2
    config, _, split = (wanted or "").rpartition("/")
    with _explaining_errors(repo):
        builder = _builder(repo, config)
        files = builder.config.data_files
        name = split or ("train" if "train" in files or len(files) > 1 else next(iter(files)))
        if name not in files:
            raise PreferencesError(
                _which("split", split, files, f"{repo}:{config and config + '/'}{next(iter(files))}")
            )
        # With several splits, `datasets` would look for the columns in the first one.
        builder.config.data_files = type(files)({name: files[name]})
        if builder.name == "csv":
            # "None" and "N/A" may be actual replies.
            builder.config.keep_default_na, builder.config.na_values = False, [""]
        rows = builder.as_streaming_dataset(name)
    columns = rows.features or {}
    if media := next((column for column, kind in columns.items() if _is_media(kind)), None):
        raise PreferencesError(f"Its column {media!r} holds images or other media, and only text can be trained on.")
    labels = {column: kind.names for column, kind in columns.items() if isinstance(kind, datasets.ClassLabel)}
    return Table(
        with_labels(_rows(repo, rows), labels),
        list(columns),
        notes=[f"Hub dataset, split {name}, commit {builder.hash[:7]}"],
    )


def _builder(repo: str, config: str) -> Any:
    """Return the builder that knows the files of *config* at the newest commit."""
    import datasets
    from huggingface_hub import HfApi, constants

    # A single request comes first, because `datasets` retries many times before it reports that the Hub is unreachable.
    commit = HfApi().dataset_info(repo, timeout=constants.HF_HUB_ETAG_TIMEOUT).sha
    # A bare name could mean a local folder; without a commit, the columns would come from the dataset viewer's server.
    path = f"hf://datasets/{repo}"
    try:
        return datasets.load_dataset_builder(path, config or None, revision=commit)
    except ValueError:
        configs = datasets.get_dataset_config_names(path, revision=commit)
        if config in configs or (not config and len(configs) == 1):
            raise
        raise PreferencesError(_which("config", config, configs, f"{repo}:{configs[0]}/train")) from None


def _which(kind: str, asked: str, there: Iterable[str], example: str) -> str:
    names = [str(name) for name in there]
    told = f"It has no {kind} {asked!r}" if asked else f"It has {len(names)} {kind}s"
    return f"{told}. Name one of {', '.join(names[:20])}{' …' if len(names) > 20 else ''}, like this: {example}"


def _is_media(kind: Any) -> bool:
    """Whether this is or contains a column type that `datasets` decodes, such as an image."""
    inside = kind.values() if isinstance(kind, dict) else [kind.feature] if hasattr(kind, "feature") else []
    return hasattr(kind, "decode") or any(map(_is_media, inside))


def _rows(repo: str, rows: Iterable[dict[str, Any]]) -> Rows:
    with _explaining_errors(repo):
        yield from enumerate(rows, 1)


@contextmanager
def _explaining_errors(repo: str) -> Iterator[None]:
    """Turn errors of the Hub, `datasets` or its readers into one sentence, and silence their logs."""
    import datasets
    import httpx2
    import pyarrow as pa
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    datasets.disable_progress_bars()
    disable_progress_bars()
    levels = {logger: logger.level for logger in map(logging.getLogger, ("datasets", "huggingface_hub"))}
    readers = (datasets.exceptions.DatasetsError, pa.ArrowException, zlib.error, EOFError)
    try:
        for logger in levels:
            logger.setLevel(logging.CRITICAL)
        with explaining_disk_full(constants.HF_HOME):
            yield
    except DPOHubError:
        raise
    except (*readers, httpx2.HTTPError, OSError, ValueError, RuntimeError, ImportError) as error:
        raise PreferencesError(_problem_in_words(error, f"{constants.ENDPOINT}/datasets/{repo}")) from error
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _problem_in_words(error: Exception, page: str) -> str:
    """Say what happened and what to do. The client's own messages would reveal signed URLs."""
    import httpx2
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    # `datasets` reports a dataset with restricted access as not found, although the Hub has just confirmed it exists.
    if isinstance(error, (GatedRepoError, DatasetNotFoundError)):
        return f"Its owner decides who may read it. Ask for access at {page}, then run: hf auth login"
    if isinstance(error, RepositoryNotFoundError):
        return (
            "There is no such file, nor a Hub dataset of this name that you may read. Check the name; for a private "
            "dataset run: hf auth login"
        )
    if isinstance(error, HfHubHTTPError):
        status, path = error.response.status_code, error.response.url.path
        return f"The Hub answered {status} for {path}. " + (
            "Your token is not known there: run hf auth login" if status == 401 else "Try again in a while."
        )
    if isinstance(error, (httpx2.HTTPError, ConnectionError)):
        return f"{page} cannot be reached, and there is no file of this name. Check the connection and the name."
    told = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return f"It cannot be read: {told}. Download the file you need from {page}/tree/main and give its path."
