"""Whose a token is and what it may do, against a Hub of our own."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from dpo_hub.errors import PublishError, RecipeError
from dpo_hub.hub import calls
from dpo_hub.hub.account import account, client, price, require_readable, require_writable
from dpo_hub.hub.calls import UnreachableError

from .conftest import ADA, ADA_READS, BASE, BOB, Python
from .loopback import Hub, Repo


@pytest.fixture
def api(hub: Hub) -> HfApi:
    """Ada's client."""
    return client(ADA, endpoint=hub.endpoint)


def fine_grained(*scopes: tuple[str, str, str]) -> dict[str, Any]:
    """A token's part of whoami, with (kind, name, permission) for each thing that it may do."""
    scoped = [{"entity": {"type": kind, "name": name}, "permissions": [may]} for kind, name, may in scopes]
    return {"auth": {"accessToken": {"role": "fineGrained", "fineGrained": {"global": [], "scoped": scoped}}}}


def member(role: str) -> dict[str, Any]:
    return {"orgs": [{"type": "org", "name": "acme", "roleInOrg": role}]}


def test_an_account_is_a_name_its_organisations_and_what_the_token_may(hub: Hub, api: HfApi) -> None:
    """Whoami is read once into plain words."""
    hub.said[ADA] = member("contributor") | fine_grained(("user", "ada", "repo.write"))
    who = account(api)
    assert (who.name, dict(who.organisations), who.role) == ("ada", {"acme": "contributor"}, "fineGrained")
    assert who.scopes == {"ada": {"repo.write"}}


@pytest.mark.parametrize(
    ("repo", "said"),
    [
        ("ada/new", {}),
        (BASE, {}),
        ("ada/new", fine_grained(("user", "ada", "repo.write"))),
        ("acme/new", member("contributor")),
        ("acme/new", member("write") | fine_grained(("org", "acme", "repo.write"))),
    ],
)
def test_where_a_token_may_write(hub: Hub, api: HfApi, repo: str, said: dict[str, Any]) -> None:
    """One's own repositories and those of an organisation, there already or not, by role and by scope."""
    hub.said[ADA] = said
    assert require_writable(repo, api).name == "ada"


@pytest.mark.parametrize(
    ("token", "repo", "said", "told"),
    [
        (ADA_READS, "ada/new", {}, "may only read. Make one that may write"),
        (BOB, "ada/new", {}, "bob is neither ada nor a member of it"),
        ("hf_nobodysCanary", "ada/new", {}, "does not know this token"),
        ("hf_two words", "ada/new", {}, "characters in it that no token has"),
        (ADA, "new", {}, "does not say whose repository"),
        (ADA, "acme/new", member("read"), "may only read in acme"),
        (ADA, "ada/new", fine_grained(("user", "ada", "repo.content.read")), "may not write to ada"),
        (ADA, "acme/new", member("admin") | fine_grained(("user", "ada", "repo.write")), "may not write to acme"),
        (ADA, "acme/old", member("contributor"), "acme/old is there already, and this token may not write to it"),
    ],
)
def test_where_a_token_may_not_write(hub: Hub, token: str, repo: str, said: dict[str, Any], told: str) -> None:
    """Each reason is one sentence or two, and the token is in none of them."""
    hub.said[token] = said
    hub.repos["acme/old"] = Repo(private=False)
    with pytest.raises(PublishError, match=told) as refused:
        require_writable(repo, client(token, endpoint=hub.endpoint))
    assert token not in str(refused.value)
    assert refused.value.__suppress_context__ or token not in str(refused.value.__context__)


def test_a_gated_base_model_says_what_to_do(hub: Hub, api: HfApi) -> None:
    """Its owner reads it; others are told to accept its terms. Folders and the demo's model ask nobody."""
    hub.repos[BASE].gated = True
    bob = client(BOB, endpoint=hub.endpoint)
    require_readable(BASE, api)
    with pytest.raises(PublishError, match=f"{BASE} is gated. Accept its terms at https://huggingface.co/{BASE}"):
        require_readable(BASE, bob)
    with pytest.raises(PublishError, match="no base model ada/none on the Hub"):
        require_readable("ada/none", bob)
    require_readable("demo", client(ADA, endpoint="http://127.0.0.1:9"))


def test_prices_are_by_the_hour(api: HfApi) -> None:
    """A machine for jobs is found with its accelerator; an unknown one is told with those that there are."""
    found = price("a10g-small", api)
    assert found.hourly == pytest.approx(1.0, abs=0.01)
    assert found.accelerator == "1 × Nvidia A10G, 24 GB"
    with pytest.raises(RecipeError, match=r"no machine 'h900'\. Name one of a10g-small, cpu-basic"):
        price("h900", api)


def test_a_hub_that_does_not_answer_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not knowing is no refusal."""
    monkeypatch.setattr(calls, "WAITS", (0.0,))
    with socket.create_server(("127.0.0.1", 0)) as free:
        api = client(ADA, endpoint=f"http://127.0.0.1:{free.getsockname()[1]}")
    for ask in (
        lambda: account(api),
        lambda: require_writable("ada/new", api),
        lambda: require_readable(BASE, api),
        lambda: price("a10g-small", api),
    ):
        with pytest.raises(UnreachableError, match="cannot be reached"):
            ask()


def test_the_card_is_checked_by_the_hub_before_there_is_one(hub: Hub, python: Python) -> None:
    """The metadata of a recipe's card goes to the Hub's own validation."""
    code = (
        "from dpo_hub import Recipe; from dpo_hub.hub.account import require_valid_card; "
        f"from dpo_hub.hub.account import client; require_valid_card(Recipe(model={BASE!r}), client())"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert hub.cards[-1]["base_model"] == BASE


def test_preflight_tells_price_and_refusal(hub: Hub, python: Python, few_pairs: Path) -> None:
    """What a machine costs is told; where publishing will be refused, it ends with 2 and one line, unless forced."""
    asked = ("-m", "dpo_hub", "preflight", few_pairs, "--flavor", "a10g-small", "--publish-to", "bob/tone")
    done = python(*asked, "--force", "--json", token=ADA)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["price"]["flavor"] == "a10g-small"
    assert told["cost"] == pytest.approx(told["price"]["hourly"] * told["run_seconds"] / 3600)
    assert [(finding["kind"], finding["severity"]) for finding in told["findings"]] == [("publishing", "high")]
    assert len(hub.cards) == 1
    refused = python(*asked, token=ADA)
    assert refused.returncode == 2
    assert "if it ran at this machine's speed" in " ".join(refused.stdout.split())
    (line,) = refused.stderr.splitlines()
    assert line.startswith("dpo-hub: ada is neither bob nor a member of it")
    assert ADA not in done.stdout + done.stderr + refused.stdout + refused.stderr
