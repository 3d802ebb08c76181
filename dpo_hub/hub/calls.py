"""Calls to the Hub: made again where that may help, and told in a sentence where the Hub says no. Needs no torch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled

from ..errors import PublishError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

TOKENS = "https://huggingface.co/settings/tokens"
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers that may be others in a moment."""
BROKEN = (httpx2.TransportError, ConnectionError, TimeoutError)
"""A connection that broke; the last two are the words of the client's part that sends large files."""
WAITS = (1.0, 2.0, 4.0)
"""Seconds before the second, third and fourth try, where the Hub does not say how long."""
LONGEST_WAIT = 60.0
"""Seconds that are waited at most where it does say."""


class UnreachableError(PublishError):
    """The Hub does not answer, so nothing can be said."""


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Call *ask*, and again after a while where the connection broke or the Hub was busy.

    Only for what may be done twice.
    """
    for wait in WAITS:
        try:
            return ask()
        except (*BROKEN, HfHubHTTPError) as error:
            pause = _pause(error, wait)
            if pause is None:
                raise
            log.info("%s; trying again in %.0f s", briefly(error), pause)
        time.sleep(pause)
    return ask()


def _pause(error: Exception, wait: float) -> float | None:
    """Seconds to wait before it is tried again, or None where that is no use."""
    if not isinstance(error, HfHubHTTPError):
        return wait
    if error.response.status_code not in PASSING:
        return None
    said = error.response.headers.get("Retry-After", "")
    return min(float(said), LONGEST_WAIT) if said.isdigit() else wait


def briefly(error: Exception) -> str:
    """What went wrong, in a few words and without an address."""
    if isinstance(error, HfHubHTTPError):
        return f"the Hub answered {error.response.status_code}"
    return "the connection to the Hub broke off"


@contextmanager
def telling(what: str, api: HfApi, *, outcome: str = "so nothing was changed") -> Iterator[None]:
    """Turn the Hub's refusals, and its silence, into sentences that say what to do.

    Args:
        what: what it was about, a repository's or a job's name.
        api: the client that asks.
        outcome: what it means, as half a sentence.

    Raises:
        UnreachableError: it did not answer, or not now.
        PublishError: it refused.
    """
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise UnreachableError(
            f"The client is in offline mode (HF_HUB_OFFLINE), {outcome}. Leave that mode and run it again."
        ) from error
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise UnreachableError(
            f"The Hub at {api.endpoint} cannot be reached, {outcome}. Check the connection and run it again."
        ) from error
    except BROKEN as error:
        raise UnreachableError(
            f"The connection to the Hub at {api.endpoint} broke off, perhaps after the last word was said. Run it "
            "again: what arrived is not sent twice."
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        kind = UnreachableError if status in PASSING else PublishError
        raise kind(_refusal(error, what, outcome)) from error


def _refusal(error: HfHubHTTPError, what: str, outcome: str) -> str:
    owner, status = what.partition("/")[0], error.response.status_code
    if isinstance(error, GatedRepoError):
        return f"{what} is gated, {outcome}. Accept its terms at https://huggingface.co/{what}, then run it again."
    told = {
        401: f"The Hub knows nobody by this token, or got none, {outcome}. Run hf auth login, or give a token with "
        "--token.",
        402: f"The Hub wants to be paid for this first, {outcome}. Machines need credits, and a Space on the one that "
        "costs nothing, cpu-basic, needs a PRO account: https://huggingface.co/settings/billing",
        403: f"This token may not do that for {owner} on the Hub, {outcome}. Use one with write access to it from "
        f"{TOKENS}, or take your own name.",
        404: f"The Hub has no {what}, or not for this token, {outcome}. Check the name, and whose token it is.",
        409: f"{what} is there already, or something else is being done with it, {outcome}. Wait a little, or take "
        "another name.",
        412: f"{what} was changed by somebody else meanwhile, {outcome}. Run it again.",
    }.get(status)
    said = error.server_message or "no reason given"
    return told or f"The Hub answered {status} ({said}), {outcome}. Run it again in a while."
