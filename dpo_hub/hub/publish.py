"""A finished run becomes a repository on the Hub, in one commit, and proves itself. Loads no torch.

Whatever happens on the way, a repository is published once or not at all, and running it again is right: files that
are there are not sent again, and a commit whose answer was lost is found.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from ..recipe import DEMO_MODEL
from ..run import Run
from .account import account, require_name, require_writable_by, token_of
from .bundle import OF_THE_DEMO, Files, Inherited, adapter_files, data_files, merged_files
from .calls import UnreachableError, briefly, patiently, telling
from .card import LOCAL_FOLDER, public_base
from .commits import DATASET, MODEL, Repository, commit_once, ensure_repository
from .models import merge
from .proof import Proof, prove_adapter, prove_listed

log = logging.getLogger(__name__)

Tell = Callable[[str], None]
Prove = Callable[[HfApi, Repository, Files, str], Proof]


@dataclass(frozen=True)
class Published:
    """A repository that is on the Hub as it was meant: its address, the commit, and what was compared."""

    url: str
    commit: str
    private: bool
    proof: Proof


def publish(  # noqa: PLR0913  # an option each
    run: Run,
    repo_id: str,
    *,
    api: HfApi,
    private: bool = True,
    with_data: bool = False,
    merged: bool = False,
    compare: bool = True,
    tell: Tell = lambda _: None,
) -> list[Published]:
    """Publish the adapter of *run* as the model *repo_id*, with card, curves, recipe and measurements.

    Args:
        run: a finished run.
        repo_id: `owner/name`.
        api: the Hub's client, with the token in it; see `account.client`.
        private: nobody else sees it.
        with_data: publish its pairs too, as the dataset `owner/name-preferences`; the two name each other.
        merged: publish the base model with the adapter worked into it too, as the model `owner/name-merged`.
        compare: load the base model, in a process of its own, and see that the adapter fetched from the Hub computes
            what the run's own does.
        tell: called with what is done next, in a few words.

    Returns:
        What was published: the adapter first, then pairs and merged model.

    Raises:
        RunError: the run has not finished.
        UnreachableError: the Hub does not answer; the message says whether anything was published.
        PublishError: the name is no good, the token may not write there, the adapter was removed, a repository is
            public although *private* was asked for or was changed by somebody else, or the Hub refuses.
        ModelError: the merged model cannot be made.
    """
    run.require_finished()
    data_id, merged_id = f"{repo_id}-preferences" if with_data else None, f"{repo_id}-merged" if merged else None
    wanted = {repo_id: MODEL} | ({data_id: DATASET} if data_id else {}) | ({merged_id: MODEL} if merged_id else {})
    tell(f"Asking whether {repo_id} may be written to")
    _require_writable(wanted, api)
    done: dict[str, Published] = {}

    def send(name: str, files: Files, prove: Prove) -> None:
        done[name] = _send(run, api, name, files, kind=wanted[name], private=private, prove=prove, tell=tell)

    with tempfile.TemporaryDirectory() as folder:
        made, inherited = Path(folder), _inherited(run, api)
        files = adapter_files(run, repo_id, inherited, data=data_id)
        if data_id:
            send(data_id, data_files(run, data_id, repo_id, made), prove_listed)
        send(repo_id, files, partial(prove_adapter, run=run, compare=compare))
        if merged_id:
            tell("Working the adapter into the base model")
            merge(run, made / "merged")
            send(merged_id, merged_files(run, merged_id, repo_id, inherited, made / "merged"), prove_listed)
    return [done[name] for name in wanted]


def _require_writable(wanted: Mapping[str, str], api: HfApi) -> None:
    """See that all repositories may be written to, before the first is made."""
    for name in wanted:
        require_name(name)
    try:
        who = account(token_of(api), api=api)
        for name, kind in wanted.items():
            require_writable_by(who, name, api=api, kind=kind)
    except UnreachableError as error:
        raise UnreachableError(f"{error} Nothing was published. Check the connection and run it again.") from error


def _send(  # noqa: PLR0913  # what, where, and how it is proved
    run: Run, api: HfApi, repo_id: str, files: Files, *, kind: str, private: bool, prove: Prove, tell: Tell
) -> Published:
    """Publish one repository, and prove that it is there as it was meant."""
    url = f"{api.endpoint}/{'datasets/' if kind == DATASET else ''}{repo_id}"
    with telling(repo_id, api, outcome=f"so {repo_id} was not published"):
        to = ensure_repository(api, repo_id, kind=kind, private=private)
        tell(f"Sending {len(files)} files to {url}")
        commit = commit_once(api, to, files, message=f"Publish the run {run.id}")
    tell(f"Comparing what is in {repo_id} now with what was sent")
    try:
        with telling(repo_id, api, outcome="so it was not compared"):
            proof = prove(api, to, files, commit)
    except UnreachableError as error:
        raise UnreachableError(
            f"{repo_id} was published ({url}), but it could not be seen whether all is well. {error} Run it again: "
            "nothing is sent twice, and it is compared."
        ) from error
    return Published(url, commit, to.private, proof)


def _inherited(run: Run, api: HfApi) -> Inherited:
    """What the base model's card says of licence and languages; nothing where there is no card to be seen."""
    base = public_base(run.recipe.model)
    if base == DEMO_MODEL:
        return OF_THE_DEMO
    if base == LOCAL_FOLDER:
        return Inherited()
    try:
        card: Any = patiently(lambda: api.model_info(base)).card_data or {}
    except (HfHubHTTPError, httpx2.TransportError) as error:
        log.warning("the licence of %s is not known: its card cannot be seen (%s)", base, briefly(error))
        return Inherited()
    said = {name: card.get(name) for name in ("license", "license_name", "license_link")}
    languages = card.get("language") or []
    return Inherited(
        {name: value for name, value in said.items() if isinstance(value, str)},
        [languages] if isinstance(languages, str) else list(languages),
    )
