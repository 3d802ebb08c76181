"""Once, where it is asked for, against the real Hub: DPO_HUB_LIVE=1 and a token that may write, in HF_TOKEN."""

from __future__ import annotations

import os
import secrets

import pytest
from huggingface_hub import HfApi

from dpo_hub.hub.account import account, client
from dpo_hub.hub.publish import publish

from .conftest import Tiny

pytestmark = pytest.mark.skipif(
    os.environ.get("DPO_HUB_LIVE") != "1" or "HF_TOKEN" not in os.environ,
    reason="needs DPO_HUB_LIVE=1 and HF_TOKEN: it publishes to the real Hub, privately, and deletes it again",
)


@pytest.fixture
def api() -> HfApi:
    return client(os.environ["HF_TOKEN"])


def test_a_private_repository_is_published_and_deleted(tiny: Tiny, api: HfApi) -> None:
    """The real Hub takes adapter, card and pairs, once, gives them back the same, and is left as it was."""
    name = f"{account(os.environ['HF_TOKEN'], api=api).name}/dpo-hub-live-{secrets.token_hex(4)}"
    try:
        first = publish(tiny.run, name, api=api, with_data=True, compare=False)
        again = publish(tiny.run, name, api=api, with_data=True, compare=False)
        assert [one.private for one in first] == [True, True]
        assert [one.commit for one in again] == [one.commit for one in first]
    finally:
        api.delete_repo(name, missing_ok=True)
        api.delete_repo(f"{name}-preferences", repo_type="dataset", missing_ok=True)
