"""The command line, in this process where that says as much, and in one of its own where the process is the point."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

import pytest

from dpo_hub.cli import main

Done = subprocess.CompletedProcess[str]
USUAL = {"HF_HUB_OFFLINE": "1", "COLUMNS": "100"}


def dpo_hub(*arguments: object, typed: str = "", **environment: str) -> Done:
    """Run the command line in this process, offline; importing torch anew would take longer than most commands."""
    words = ["dpo-hub", *map(str, arguments)]
    out, error, log = StringIO(), StringIO(), logging.getLogger("dpo_hub")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(error), _shown() as shown:
        for name, value in (USUAL | environment).items():
            patch.setenv(name, value)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr(sys, "argv", words)
        patch.setattr(sys, "stdin", StringIO(typed))
        patch.setattr(log, "handlers", [*log.handlers])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    warned = [warnings.formatwarning(one.message, one.category, one.filename, one.lineno) for one in shown]
    return Done(words, code, out.getvalue(), error.getvalue() + "".join(warned))


@contextmanager
def _shown() -> Iterator[list[warnings.WarningMessage]]:
    """List the warnings that a user would see: no errors as in tests, and nothing that is meant for developers."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for hidden in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", hidden)
        yield shown


def dpo_hub_process(*arguments: object, limit_file_size: int | None = None, typed: str = "") -> Done:
    """Run the command line as a process of its own, offline."""

    def limit() -> None:
        if limit_file_size:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_file_size, limit_file_size))

    return subprocess.run(
        [sys.executable, "-m", "dpo_hub", *map(str, arguments)],
        capture_output=True,
        text=True,
        input=typed,
        check=False,
        env=os.environ | USUAL,
        preexec_fn=limit,
    )


def assert_one_clear_line(result: Done, told: str) -> None:
    """One line that says what is wrong, and exit code 2."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("dpo-hub: ")
    assert told in line
