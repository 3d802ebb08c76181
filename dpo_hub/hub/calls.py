"""Calls to the Hub: retried where that may help, with refusals turned into sentences. Needs no torch."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils._http import parse_ratelimit_headers

from ..errors import PublishError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

TOKENS = "https://huggingface.co/settings/tokens"
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses that may be temporary."""
CONNECTION_ERRORS = (httpx2.RequestError, ConnectionError, TimeoutError, JSONDecodeError)
"""No answer, or one that is not the Hub's. The part of the client that uploads large files raises the middle two."""
_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})")
"""How that part reports a refusal, also as a connection error."""
WAITS = (1.0, 2.0, 4.0)
"""Seconds before the second, third and fourth try, unless the Hub says how long to wait."""
LONGEST_WAIT = 300.0
"""The longest wait in seconds where the Hub says how long; its limits are for five minutes."""
TOLD = 5.0
"""Waits longer than this many seconds are logged as warnings."""
QUOTED = 200
"""Characters quoted from a server's own message."""


class UnreachableError(PublishError):
    """The Hub does not answer, so the outcome is unknown."""


def with_retries(ask: Callable[[], Answer], *, tries: int | None = None, of: str = "the Hub") -> Answer:
    """Call *ask*, and retry after a wait if the connection broke or the server, named by *of*, was busy.

    Only for calls that may safely be repeated. There are four *tries* by default; pass fewer if the client retries too.
    """
    for wait in WAITS[: tries and tries - 1]:
        try:
            return ask()
        except (*CONNECTION_ERRORS, HfHubHTTPError) as error:
            pause = _pause(error, wait)
            if pause is None:
                raise
            log.log(
                logging.WARNING if pause > TOLD else logging.INFO,
                "%s; again in %.0f s",
                describe_error(error, of),
                pause,
            )
        time.sleep(pause)
    return ask()


def _pause(error: Exception, wait: float) -> float | None:
    """Seconds to wait before the next try, or None if retrying is no use."""
    if not is_transient(error):
        return None
    headers = error.response.headers if isinstance(error, HfHubHTTPError) else {}
    said = headers.get("Retry-After", "")
    limit = parse_ratelimit_headers(headers)
    told = float(said) if said.isdigit() else limit.reset_in_seconds if limit else wait
    return min(told, LONGEST_WAIT)


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed later."""
    return not isinstance(error, OfflineModeIsEnabled) and _status(error) in (None, *PASSING)


def _status(error: Exception) -> int | None:
    """The HTTP status of the Hub's answer, if it answered."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


def describe_error(error: Exception, of: str = "the Hub") -> str:
    """What went wrong in the call to *of*, in a few words and without a URL."""
    status = _status(error)
    return f"{of} answered {status}" if status else f"{of} {_how_unreachable(error)}"


def server_message(error: Exception, *, secret: str | None = None) -> str:
    """A server's reason for a refusal: one line, shortened, without the *secret*."""
    said = getattr(error, "server_message", None) or ""
    return " ".join((said.replace(secret, "…") if secret else said).split())[:QUOTED].rstrip(". ")


@contextmanager
def explaining_hub_errors(what: str, api: HfApi, *, outcome: str = "so nothing was changed") -> Iterator[None]:
    """Turn the Hub's refusals, and missing answers, into sentences that say what to do.

    Args:
        what: the name of the repository or job concerned.
        api: the client that makes the call.
        outcome: the consequence, as half a sentence.

    Raises:
        UnreachableError: the Hub did not answer, or is busy.
        PublishError: it refused.
    """
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise UnreachableError(
            f"The client is in offline mode (HF_HUB_OFFLINE), {outcome}. Leave that mode and run it again."
        ) from error
    except (*CONNECTION_ERRORS, HfHubHTTPError) as error:
        if (status := _status(error)) is None:
            how = _how_unreachable(error)
            raise UnreachableError(
                f"The Hub at {api.endpoint} {how}, {outcome}. Check the connection and run it again."
            ) from error
        kind = UnreachableError if status in PASSING else PublishError
        raise kind(_refusal(error, status, what, outcome)) from error


def _how_unreachable(error: Exception) -> str:
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return "cannot be reached"
    return "gave no answer of its own" if isinstance(error, JSONDecodeError) else "broke off the connection"


def _refusal(error: Exception, status: int, what: str, outcome: str) -> str:
    owner, said = what.partition("/")[0], server_message(error)
    if isinstance(error, GatedRepoError):
        return f"{what} is gated, {outcome}. Accept its terms at https://huggingface.co/{what}, then run it again."
    told = {
        401: f"The Hub does not know this token, or got none, {outcome}. Run hf auth login, or give a token with "
        "--token.",
        402: f"The Hub wants to be paid for this first, {outcome}. Machines need credits, and a Space on the one that "
        "costs nothing, cpu-basic, needs a PRO account: https://huggingface.co/settings/billing",
        403: f"This token may not do that for {owner} on the Hub, {outcome}. Use one with write access to it from "
        f"{TOKENS}, or take your own name.",
        404: f"The Hub has no {what}, or not for this token, {outcome}. Check the name, and whose token it is.",
        409: f"{what} is there already, or something else is being done with it, {outcome}. Wait a little, or take "
        "another name.",
        412: f"{what} was changed by somebody else meanwhile, {outcome}. Run it again.",
    }.get(status, f"The Hub answered {status}, {outcome}. Run it again in a while.")
    return f"{told} The Hub says: {said}." if said else told
