"""Everything that can go wrong for a reason the user can act on.

    DPOHubError
    ├── PreferencesError (ValueError)     a preference file, or a row or column of it
    ├── RecipeError (ValueError)          a setting
    ├── ModelError (ValueError)           a base model that cannot be loaded or trained
    ├── RunError (RuntimeError)           a run that does not exist, or is not in the required state
    │   └── BusyError                     another process is using the run
    ├── DiskFullError (OSError)           no disk space to write
    ├── MissingExtraError (ImportError)   a part of the package that is not installed
    ├── JudgeError (RuntimeError)         a judge that gives no answer
    ├── SignInError (PermissionError)     a visitor of a Space who has not signed in
    └── PublishError (RuntimeError)       the Hub refused, or could not be reached

A message says what, where, and what to do next, in a sentence or two. Errors become output in two places only: the
command line (stderr, exit code 2) and the app.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class DPOHubError(Exception):
    """Root of all errors that `dpo_hub` raises on purpose."""


class PreferencesError(DPOHubError, ValueError):
    """A preference file cannot be read as pairs."""


class RecipeError(DPOHubError, ValueError):
    """A setting is out of range or contradicts another."""


class ModelError(DPOHubError, ValueError):
    """A base model cannot be loaded or trained."""


class RunError(DPOHubError, RuntimeError):
    """A run does not exist, or is not in the required state."""


class BusyError(RunError):
    """Another process is using the run."""

    exit_code = 75
    """The exit code of a worker; EX_TEMPFAIL of sysexits.h."""


class DiskFullError(DPOHubError, OSError):
    """There is no disk space to write."""


class MissingExtraError(DPOHubError, ImportError):
    """A part of the package is not installed."""


class JudgeError(DPOHubError, RuntimeError):
    """A model that should judge replies gives no answer."""


class SignInError(DPOHubError, PermissionError):
    """A visitor has to sign in first."""


class PublishError(DPOHubError, RuntimeError):
    """The Hub refused, or could not be reached."""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_FULL_MESSAGES = (*(f"os error {code})" for code in _NO_ROOM), "enforce fail at inline_container.cc")
"""How safetensors reports it, and torch's writer, which drops the error number."""


@contextmanager
def explaining_disk_full(where: object) -> Iterator[None]:
    """Turn "no room" from any writer, safetensors among them, into a `DiskFullError` that names *where*."""
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in _NO_ROOM or any(said in str(error) for said in _DISK_FULL_MESSAGES):
            raise DiskFullError(
                f"No room to write under {where}. Free some space, or keep runs (DPO_HUB_HOME) or downloaded models "
                "(HF_HOME) on another disk, and start again; dpo-hub resume goes on with a run that was begun."
            ) from error
        raise


@contextmanager
def needing_extra(extra: str) -> Iterator[None]:
    """Turn a failed import into an error with the `pip install` command that fixes it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"This needs the package {error.name}, which is not installed. Run: {sys.executable} -m pip install "
            f"'dpo_hub[{extra}]'"
        ) from error
