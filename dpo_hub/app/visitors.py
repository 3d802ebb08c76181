"""The app's visitors, and the folder (`shelf`) with each one's runs and files. Knows nothing of Gradio.

On your own machine there is one visitor, whose runs are those of the command line. On a Space each visitor has a folder
of their own and is identified only by signing in with the Hub: without sign-in anybody could forge the session, because
Gradio then signs it with a constant. A folder belongs to the account (OpenID's `sub`) and not to its name, which may
pass to somebody else.
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
    """One visitor. `name` is their name on the Hub, empty on your own machine; `token` is for what they do there."""

    name: str
    shelf: Path
    token: str | None = field(default=None, repr=False)

    def runs(self) -> list[Run]:
        """Their runs, newest first."""
        return all_runs(self.shelf)

    def run(self, run_id: str) -> Run | None:
        """Their run with exactly this id: no path, no prefix of an id, and nobody else's run."""
        with suppress(FileNotFoundError):  # there are no runs yet
            for folder in (self.shelf / "runs").iterdir():  # the requested id is only compared, never used as a path
                if folder.name == run_id and run_id[0] != "." and (folder / "preferences.parquet").is_file():
                    return Run(folder)
        return None


def on_space() -> bool:
    """Whether this is a Space, which many people visit."""
    return bool(os.environ.get("SPACE_ID")) or os.environ.get("SYSTEM") == "spaces"


def signs_in() -> bool:
    """Whether visitors can sign in.

    If any of these variables is missing, Gradio signs everybody in as the owner of the machine, or signs sessions with
    a constant.
    """
    named = ("SPACE_ID", "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")
    return os.environ.get("SYSTEM") == "spaces" and all(os.environ.get(name) for name in named)


def visitor(session: Mapping[str, Any] | None) -> Visitor:
    """Identify the visitor by the *session* of their request.

    Raises:
        SignInError: this is a Space, and they have not signed in.
    """
    if not on_space():
        return Visitor("", home())
    if not signs_in():
        raise SignInError("This Space has no sign-in. Its owner adds it with hf_oauth: true in the Space's README.")
    told = _mapping(_mapping(session).get("oauth_info"))
    about = _mapping(told.get("userinfo"))
    name, account = about.get("preferred_username"), about.get("sub")
    if not (_is_name(name) and _is_name(account) and _is_future(told.get("expires_at"))):
        raise SignInError("Sign in first: your files and runs are kept for your account, and nobody else sees them.")
    token = told.get("access_token")
    return Visitor(name, home() / "visitors" / account, token if isinstance(token, str) and token else None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and bool(_NAME.fullmatch(value))


def _is_future(until: Any) -> bool:
    return isinstance(until, int | float) and not isinstance(until, bool) and until > time.time()
