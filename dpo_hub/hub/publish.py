"""A finished run becomes a repository on the Hub, in one commit. Needs no torch."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from ..errors import PublishError
from ..run import Run
from .account import Token, require_name, sound
from .card import ADAPTER_LINE, public_base

log = logging.getLogger(__name__)

PUBLISHED = (".safetensors", ".json", ".jinja", ".model", ".txt")
"""What of the adapter's folder goes out: weights, settings and the tokenizer, and never a pickle."""


def publish(run: Run, repo_id: str, *, token: Token = None, private: bool = True, api: HfApi | None = None) -> str:
    """Publish the adapter, card, recipe and measurements of *run* as the model *repo_id*, and return its URL.

    All of it is one commit, so the repository is never half there. Publishing again adds a commit with what changed.

    Raises:
        RunError: the run has not finished.
        PublishError: *repo_id* is no `owner/name`, the adapter was removed, the repository is public although *private*
            was asked for, the token is not good enough, or the Hub cannot be reached.
    """
    run.require_finished()
    require_name(repo_id)
    token, api, files = sound(get_token() if token is None else token), api or HfApi(), list(_files(run, repo_id))
    with _telling(repo_id, api.endpoint):
        url = api.create_repo(repo_id, private=private, exist_ok=True, token=token)
        there = api.model_info(repo_id, token=token)
        if private and not there.private:
            raise PublishError(
                f"{repo_id} is there already and is public, so nothing was published. Publish it as public "
                "(--public), or under another name."
            )
        if there.private and not private:
            log.warning("%s was there before and is private; its settings on the Hub make it public", repo_id)
        api.create_commit(
            repo_id,
            files,
            commit_message=f"Publish the run {run.id}",
            parent_commit=there.sha,
            token=token,
        )
    return str(url)


def _files(run: Run, repo_id: str) -> Iterator[CommitOperationAdd]:
    """Every file of the repository; the base model's path on this disk is in none of them."""
    if not (run.adapter / "adapter_model.safetensors").is_file():
        raise PublishError(
            f"There is no adapter in {run.adapter}, so there is nothing to publish. Train the run again."
        )
    base = public_base(run.recipe.model)
    config = json.loads((run.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    texts = {
        "README.md": run.card.replace(ADAPTER_LINE, f'adapter = "{repo_id}"', 1),
        "recipe.json": replace(run.recipe, model=base).to_json(),
        "adapter_config.json": json.dumps(config | {"base_model_name_or_path": base}, indent=2, sort_keys=True),
    }
    for name, text in texts.items():
        yield CommitOperationAdd(name, text.encode())
    measured = [run.path / "metrics.jsonl", run.path / "evaluation.json"]
    for path in [*_adapter_files(run.adapter), *measured]:
        if path.name not in texts:
            yield CommitOperationAdd(path.name, path)


def _adapter_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in PUBLISHED)


@contextmanager
def _telling(repo_id: str, endpoint: str) -> Iterator[None]:
    """Turn the refusals that the user can do something about into a sentence that says what; others pass."""
    try:
        yield
    except HfHubHTTPError as error:
        raise PublishError(_refusal(error, repo_id)) from error
    except (httpx2.ConnectError, httpx2.ConnectTimeout, OfflineModeIsEnabled) as error:
        raise PublishError(
            f"The Hub at {endpoint} cannot be reached, so nothing was published. Check the connection and run it again."
        ) from error
    except httpx2.TransportError as error:
        raise PublishError(
            f"The connection to the Hub at {endpoint} broke off, perhaps after the last word was said. Run it again: "
            "what arrived is not sent twice."
        ) from error


def _refusal(error: HfHubHTTPError, repo_id: str) -> str:
    owner, status = repo_id.partition("/")[0], error.response.status_code
    told = {
        401: "The Hub knows nobody by this token, or got none, so nothing was published. Run hf auth login, or give a "
        "token with --token.",
        403: f"This token may not write to {owner} on the Hub, so nothing was published. Use a token with write access "
        "to it from https://huggingface.co/settings/tokens, or publish under your own name.",
        412: f"{repo_id} changed while this was being published, so nothing was published. Run it again.",
    }.get(status)
    return told or f"The Hub answered {status} ({error.server_message or 'no reason given'}). Run it again in a while."
