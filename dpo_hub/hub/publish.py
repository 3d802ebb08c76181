"""Publish a finished run as a repository on the Hub, in one commit, and verify it. Loads no torch.

Whatever happens, a repository is published once or not at all, and it is safe to run this again: files already there
are not sent again, and a commit whose answer was lost is found.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from ..errors import PublishError
from ..runs.base_model import OURS, is_on_hub, public_base
from ..runs.run import Run
from .account import account, require_name, require_writable
from .bundle import MODEL_FILES, OF_OURS, Files, Inherited, adapter_files, data_files, merged_files
from .calls import CONNECTION_ERRORS, UnreachableError, describe_error, explaining_hub_errors, with_retries
from .commits import DATASET, MODEL, Repository, commit_once, ensure_repository, file_ids, last_commit
from .models import merge
from .proof import Proof, verify_adapter, verify_hashes

log = logging.getLogger(__name__)

Tell = Callable[[str], None]
Verify = Callable[[HfApi, Repository, Files, str], Proof]


TITLE = "Publish the run "
"""The beginning of the title of every publishing commit."""
INITIAL_COMMIT = "initial commit"
"""The title of the Hub's own first commit in a new repository."""


@dataclass(frozen=True)
class Destination:
    """The repository to publish to, and how; see `publish`."""

    name: str
    kind: str
    private: bool
    overwrite: bool


@dataclass(frozen=True)
class Published:
    """A verified repository on the Hub: its URL, the commit, and the result of the comparison."""

    url: str
    commit: str
    private: bool
    proof: Proof


def publish(  # noqa: PLR0913  # one for each option
    run: Run,
    repo_id: str,
    *,
    api: HfApi,
    private: bool = True,
    with_data: bool = False,
    merged: bool = False,
    compare: bool = True,
    overwrite: bool = False,
    tell: Tell = lambda _: None,
) -> list[Published]:
    """Publish the adapter of *run* as the model *repo_id*, with card, curves, recipe and measurements.

    Args:
        run: a finished run.
        repo_id: `owner/name`.
        api: the Hub's client, with the token in it; see `account.client`.
        private: only the owner can see it.
        with_data: also publish its pairs, as the dataset `owner/name-preferences`; each card links to the other.
        merged: also publish the base model with the adapter merged into it, as the model `owner/name-merged`.
        compare: load the base model, in a separate process, and check that the adapter downloaded from the Hub computes
            what the local one does.
        overwrite: overwrite changes that were made there other than by publishing.
        tell: called with a few words about each next step.

    Returns:
        What was published: the adapter first, then the pairs and the merged model.

    Raises:
        RunError: the run has not finished.
        UnreachableError: the Hub does not answer; the message says whether anything was published.
        PublishError: the name is invalid, the token may not write there, the adapter was removed, a repository is
            public although *private* was requested, was last changed by other means, or the Hub refuses.
        ModelError: the merged model cannot be made.
    """
    run.require_finished()
    data_id, merged_id = f"{repo_id}-preferences" if with_data else None, f"{repo_id}-merged" if merged else None
    kinds = {repo_id: MODEL} | ({data_id: DATASET} if data_id else {}) | ({merged_id: MODEL} if merged_id else {})
    tell(f"Asking whether {repo_id} may be written to")
    _require_writable(kinds, api)
    inherited = _inherited(run, api)
    with tempfile.TemporaryDirectory(dir=run.path, prefix=".", suffix=".aside") as made:
        ready: dict[str, tuple[Files, Verify]] = {}  # in an order in which each may link to those before it
        if data_id:
            ready[data_id] = data_files(run, data_id, repo_id, Path(made)), verify_hashes
        files = adapter_files(run, repo_id, inherited, data=data_id)
        ready[repo_id] = files, partial(verify_adapter, run=run, compare=compare)
        if merged_id:
            tell("Working the adapter into the base model")
            folder = Path(made) / "merged"
            merge(run, folder, token=api.token)
            ready[merged_id] = merged_files(run, merged_id, repo_id, inherited, folder), verify_hashes
        done: dict[str, Published] = {}
        for name, (files, verify) in ready.items():
            to = Destination(name, kinds[name], private, overwrite)
            try:
                done[name] = _send(api, to, files, f"{TITLE}{run.id}", verify=verify, tell=tell)
            except PublishError as error:
                before = f" Before that, all was well with {', '.join(done)}." if done else ""
                raise type(error)(f"{error}{before}") from error
    return [done[name] for name in kinds]


def _require_writable(kinds: Mapping[str, str], api: HfApi) -> None:
    """Check that all repositories may be written to, before the first is created."""
    for name in kinds:
        require_name(name)
    who = account(api)
    for name, kind in kinds.items():
        require_writable(name, api, kind=kind, who=who)


def _send(  # noqa: PLR0913  # what, where, and how to verify it
    api: HfApi, to: Destination, files: Files, title: str, *, verify: Verify, tell: Tell
) -> Published:
    """Publish one repository, and verify it."""
    url = f"{api.endpoint}/{'datasets/' if to.kind == DATASET else ''}{to.name}"
    with explaining_hub_errors(to.name, api, outcome=f"so {to.name} was not published"):
        there = ensure_repository(api, to.name, kind=to.kind, private=to.private)
        last = last_commit(api, there)
        own = last.title.startswith(TITLE)
        if not own and not to.overwrite and last.title != INITIAL_COMMIT:
            raise PublishError(
                f'{to.name} was last changed by "{last.title}" ({", ".join(last.authors)}), and not by a publish, so '
                "nothing was sent. Look at it there; --overwrite writes over what differs."
            )
        stale = [path for path in file_ids(api, there, there.head) if Path(path).suffix in MODEL_FILES] if own else []
        tell(f"Sending {len(files)} files to {url}")
        commit = commit_once(api, there, files, message=title, delete=[path for path in stale if path not in files])
    tell(f"Comparing what is in {to.name} now with what was sent")
    try:
        with explaining_hub_errors(to.name, api, outcome="so it was not compared"):
            proof = verify(api, there, files, commit)
    except UnreachableError as error:
        raise UnreachableError(
            f"{to.name} was published ({url}), but it could not be seen whether all is well. {error}"
        ) from error
    return Published(url, commit, there.private, proof)


def _inherited(run: Run, api: HfApi) -> Inherited:
    """The licence and languages in the base model's card; empty if there is no card to read."""
    base = public_base(run.recipe.model)
    if run.recipe.model in OURS:
        return OF_OURS
    if not is_on_hub(base):
        return Inherited()
    try:
        card: Any = with_retries(lambda: api.model_info(base)).card_data or {}
    except (*CONNECTION_ERRORS, HfHubHTTPError) as error:
        log.warning("the licence of %s is not known: its card cannot be seen (%s)", base, describe_error(error))
        return Inherited()
    return Inherited.of(base, card)
