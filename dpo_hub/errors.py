"""Everything that can go wrong for a reason the user can act on.

    DPOHubError
    ├── PreferencesError (ValueError)     a preference file, or a row or column of it
    ├── RecipeError (ValueError)          a setting
    ├── ModelError (ValueError)           a base model that cannot be loaded or trained
    ├── RunError (RuntimeError)           a run that is not there, or not in the state asked for
    │   └── BusyError                     another process has it in hand
    ├── DiskFullError (OSError)           no room to write
    ├── MissingExtraError (ImportError)   a part of the package that was not installed
    ├── JudgeError (RuntimeError)         a judge that gives no answer
    ├── SignInError (PermissionError)     a visitor of a Space who did not say who they are
    └── PublishError (RuntimeError)       the Hub said no

A message says what, where, and what to do next, in a sentence or two. They are translated at two edges only: the
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
    """A run is not there, or not in the state that was asked for."""


class BusyError(RunError):
    """A run is in another process's hands."""

    exit_code = 75
    """Of a worker; EX_TEMPFAIL of sysexits.h."""


class DiskFullError(DPOHubError, OSError):
    """There is no room to write."""


class MissingExtraError(DPOHubError, ImportError):
    """A part of the package was not installed."""


class JudgeError(DPOHubError, RuntimeError):
    """A model that is to judge replies cannot be asked."""


class SignInError(DPOHubError, PermissionError):
    """A visitor has to say who they are first."""


class PublishError(DPOHubError, RuntimeError):
    """The Hub refused, or could not be reached."""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SAID_OF_IT = (*(f"os error {code})" for code in _NO_ROOM), "enforce fail at inline_container.cc")
"""How safetensors and torch's writer, which loses the number, tell it."""


@contextmanager
def telling_disk_full(where: object) -> Iterator[None]:
    """Turn "no room" from any writer, safetensors among them, into a `DiskFullError` that names *where*."""
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in _NO_ROOM or any(said in str(error) for said in _SAID_OF_IT):
            raise DiskFullError(
                f"No room to write under {where}. Free some space, or keep runs (DPO_HUB_HOME) or downloaded models "
                "(HF_HOME) on another disk, and start again; dpo-hub resume goes on with a run that was begun."
            ) from error
        raise


@contextmanager
def needing_extra(extra: str) -> Iterator[None]:
    """Turn a failed import into the `pip install` that mends it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"This needs the package {error.name}, which is not installed. Run: {sys.executable} -m pip install "
            f"'dpo_hub[{extra}]'"
        ) from error
