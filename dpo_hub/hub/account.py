"""Who a token belongs to on the Hub, what it may do there, and what machines cost. Needs no torch.

Every refusal is a sentence that says what to do; none contains a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from huggingface_hub import HfApi, ModelCard, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # exported lazily, so mypy does not see it

from ..errors import PublishError, RecipeError
from ..recipe import Recipe
from ..runs.base_model import OURS, local_path
from .calls import TOKENS, explaining_hub_errors, with_retries
from .card import front_matter

Token = str | Literal[False] | None
"""A user access token; None for the user's own login, False for anonymous access."""
MAY_CREATE = ("admin", "write", "contributor")
"""The organisation roles that may create repositories."""
HOURS = {"second": 1 / 3600, "minute": 1 / 60, "hour": 1.0, "day": 24.0}


@dataclass(frozen=True)
class Account:
    """The owner of a token, and what it may do: its `role` (`read`, `write` or `fineGrained`) and its *scopes*."""

    name: str
    organisations: Mapping[str, str] = field(default_factory=dict)
    """The user's role in each organisation, by its name."""
    role: str = ""
    scopes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """What a fine-grained token may do with each user, organisation or repository it names."""


@dataclass(frozen=True)
class Price:
    """What a machine on the Hub costs in US dollars an hour, and its accelerator (empty if it has none)."""

    flavor: str
    hourly: float
    accelerator: str = ""


def client(token: Token = None, *, endpoint: str | None = None) -> HfApi:
    """The Hub's client with *token*; None uses the user's own login, or anonymous access if there is none.

    Raises:
        PublishError: the token cannot be sent.
    """
    return HfApi(endpoint, token=checked(get_token() if token is None else token) or False)


def checked(token: Token) -> Token:
    """Trim the token, and refuse one that cannot be sent: the HTTP client's own error would show it.

    Raises:
        PublishError: it is not a valid token.
    """
    if not isinstance(token, str):
        return token
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise PublishError(
            f"The token is empty or has characters in it that no token has. Copy it again from {TOKENS}."
        )
    return token


def require_name(repo_id: str) -> None:
    """Refuse a name that is not `owner/name`.

    Raises:
        PublishError: the name is invalid; the message says why.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PublishError(f"{repo_id!r} cannot be the name of a repository. {error}") from error
    if "/" not in repo_id or not repo_id.isascii() or repo_id != repo_id.strip():
        raise PublishError(f"{repo_id!r} does not say whose repository it is. Give it as owner/name.")


def account(api: HfApi) -> Account:
    """Ask the Hub who owns the token in *api*.

    Raises:
        UnreachableError: the Hub cannot be reached.
        PublishError: there is no token, or the Hub does not know it.
    """
    if not api.token:
        raise PublishError(f"There is no token for the Hub. Run hf auth login, or make one at {TOKENS}.")
    with explaining_hub_errors("this account", api, outcome="so it is not known whose token this is"):
        try:
            said = api.whoami()
        except HfHubHTTPError as error:
            if error.response.status_code != 401:
                raise
            raise PublishError(
                f"The Hub does not know this token. Run hf auth login with a new one from {TOKENS}."
            ) from None
    known: dict[str, Any] = (said.get("auth") or {}).get("accessToken") or {}
    scoped = (known.get("fineGrained") or {}).get("scoped") or []
    return Account(
        name=said["name"],
        organisations={org["name"]: org.get("roleInOrg") or "" for org in said.get("orgs") or []},
        role=known.get("role") or "",
        scopes={scope["entity"].get("name", ""): frozenset(scope["permissions"]) for scope in scoped},
    )


def require_writable(repo_id: str, api: HfApi, *, kind: str = "model", who: Account | None = None) -> Account:
    """Return the account that owns the token in *api*, if it may write to *repo_id*, which need not exist yet.

    Args:
        repo_id: `owner/name`.
        api: the Hub's client.
        kind: `model`, `dataset` or `space`.
        who: the account, if already known.

    Raises:
        UnreachableError: the Hub cannot be reached.
        PublishError: the name is invalid, there is no token, or the token may not write there.
    """
    require_name(repo_id)
    who = who or account(api)
    if refusal := _refusal(who, repo_id):
        raise PublishError(refusal)
    with explaining_hub_errors(repo_id, api, outcome=f"so it is not known whether {repo_id} may be written to"):
        try:
            with_retries(lambda: api.auth_check(repo_id, repo_type=kind, write=True))
        except RepositoryNotFoundError:
            return who  # it will be created
        except HfHubHTTPError as error:
            if error.response.status_code != 403:
                raise
            raise PublishError(f"{repo_id} is there already, and this token may not write to it.") from None
    return who


def _refusal(who: Account, repo_id: str) -> str | None:
    """Why the account may not write to *repo_id*, judging by the account alone, or None."""
    owner = repo_id.partition("/")[0]
    own = owner == who.name
    if not own and owner not in who.organisations:
        return f"{who.name} is neither {owner} nor a member of it, so {repo_id} is not theirs. Publish as {who.name}/…"
    role = who.organisations.get(owner, "")
    if not own and role and role not in MAY_CREATE:
        return f"{who.name} may only read in {owner}. Ask for the role of a contributor there, or take your own name."
    if who.role == "read":
        return f"The token of {who.name} may only read. Make one that may write at {TOKENS}."
    allowed = who.scopes.get(owner, frozenset()) | who.scopes.get(repo_id, frozenset())
    if who.role == "fineGrained" and "repo.write" not in allowed:
        return f"The fine-grained token of {who.name} may not write to {owner}. Give it write access there at {TOKENS}."
    return None


def require_readable(model: str, api: HfApi) -> None:
    """Make sure that the base model *model* may be downloaded; the package's own and local models always pass.

    Raises:
        ModelError: it is a GGUF file that does not exist, or a folder with several of them.
        UnreachableError: the Hub cannot be reached; an earlier download may still work.
        PublishError: it is gated, or does not exist for this token.
    """
    if model in OURS or local_path(model):
        return
    with explaining_hub_errors(model, api, outcome=f"so it is not known whether {model} may be downloaded"):
        try:
            with_retries(lambda: api.auth_check(model))
        except GatedRepoError:
            raise PublishError(
                f"The base model {model} is gated. Accept its terms at https://huggingface.co/{model}, then run: "
                "hf auth login"
            ) from None
        except (RepositoryNotFoundError, HFValidationError):
            raise PublishError(
                f"There is no base model {model} on the Hub, or it is private. Check the name, then: hf auth login"
            ) from None


def require_valid_card(recipe: Recipe, api: HfApi) -> None:
    """Have the Hub check the metadata of the card that a run of *recipe* will get.

    Raises:
        UnreachableError: the Hub cannot be reached.
        PublishError: the Hub rejects it, with the Hub's reason.
    """
    with explaining_hub_errors("this account", api, outcome="so the card was not checked"):
        try:
            ModelCard(front_matter(recipe), ignore_metadata_errors=False).validate()
        except ValueError as error:
            raise PublishError(f"The Hub would refuse the card's metadata: {error}") from None


def price(flavor: str, api: HfApi, *, of_spaces: bool = False) -> Price:
    """Look up what the machine *flavor* costs for jobs or, with *of_spaces*, for Spaces.

    Raises:
        UnreachableError: the Hub cannot be reached.
        RecipeError: there is no such machine; the message lists those that exist.
    """
    listed = api.list_spaces_hardware if of_spaces else api.list_jobs_hardware
    with explaining_hub_errors("list of machines", api, outcome=f"so it is not known what {flavor} costs"):
        offered = {machine.name: machine for machine in with_retries(listed)}
    if flavor not in offered:
        raise RecipeError(f"The Hub has no machine {flavor!r}. Name one of {', '.join(sorted(offered))}.")
    machine = offered[flavor]
    card = machine.accelerator
    named = f"{card.quantity} × {card.manufacturer} {card.model}, {card.vram}" if card else ""
    return Price(flavor, machine.unit_cost_usd / HOURS[machine.unit_label], named)
