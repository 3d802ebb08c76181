"""Who visits the app, and the shelf on which their runs and files lie. Knows nothing of Gradio.

On one's own machine there is one visitor, whose runs are those of the command line. On a Space each has a shelf of
their own, and who they are is what signing in with the Hub says, and nothing else: elsewhere anybody could have made
the session, because Gradio signs it with a constant there. A shelf belongs to the account (OpenID's `sub`) and not to
its name, which may change hands.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from ..errors import SignInError
from ..runs.run import Run, all_runs, home

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True)
class Visitor:
    """One visitor. `name` is that on the Hub, and empty on one's own machine; `token` is for what they do there."""

    name: str
    shelf: Path
    token: str | None = field(default=None, repr=False)

    def runs(self) -> list[Run]:
        """Their runs, the newest first."""
        return all_runs(self.shelf)

    def run(self, run_id: str) -> Run | None:
        """Their run with exactly this id: no folder, no beginning of an id, and nobody else's."""
        with suppress(FileNotFoundError):  # no run was made yet
            for folder in (self.shelf / "runs").iterdir():  # what is asked for is compared, and never made a path
                if folder.name == run_id and run_id[0] != "." and (folder / "preferences.parquet").is_file():
                    return Run(folder)
        return None


def on_space() -> bool:
    """Whether this is a Space, where many visit."""
    return bool(os.environ.get("SPACE_ID")) or os.environ.get("SYSTEM") == "spaces"


def signs_in() -> bool:
    """Whether visitors can say who they are.

    Where any of this is missing, Gradio signs everybody in as the owner of the machine, or signs sessions with a
    constant.
    """
    named = ("SPACE_ID", "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")
    return os.environ.get("SYSTEM") == "spaces" and all(os.environ.get(name) for name in named)


def visitor(session: Mapping[str, Any] | None) -> Visitor:
    """Tell who visits by the *session* of their request.

    Raises:
        SignInError: it is a Space, and they have not signed in.
    """
    if not on_space():
        return Visitor("", home())
    if not signs_in():
        raise SignInError("This Space has no sign-in. Its owner adds it with hf_oauth: true in the Space's README.")
    told = _mapping(_mapping(session).get("oauth_info"))
    about = _mapping(told.get("userinfo"))
    name, account = about.get("preferred_username"), about.get("sub")
    if not (_is_name(name) and _is_name(account) and _lies_ahead(told.get("expires_at"))):
        raise SignInError("Sign in first: your files and runs are kept for your account, and nobody else sees them.")
    token = told.get("access_token")
    return Visitor(name, home() / "visitors" / account, token if isinstance(token, str) and token else None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and bool(_NAME.fullmatch(value))


def _lies_ahead(until: Any) -> bool:
    return isinstance(until, int | float) and not isinstance(until, bool) and until > time.time()
