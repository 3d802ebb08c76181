"""What the steps of the page share: where the visitor is, who they are, and how an error reaches them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from html import escape
from typing import Any

from ..errors import DPOHubError, needing_extra
from .visitors import Visitor, visitor

with needing_extra("app"):
    import gradio as gr
    from gradio.events import Dependency

STEPS = {
    "preferences": "Preferences",
    "recipe": "Recipe",
    "train": "Train",
    "compare": "Compare",
    "publish": "Publish",
}
"""The steps of the page by the name that the address has for them."""
QUIET: Mapping[str, Any] = {"api_visibility": "private", "concurrency_limit": None, "show_progress": "hidden"}
"""How the page calls its own handlers."""
DIRECT: Mapping[str, Any] = {**QUIET, "queue": False}
"""How it calls those that it calls again and again: past Gradio's queue, which takes more work than their answers."""
DEVICE: Mapping[str, Any] = {**QUIET, "concurrency_limit": 1, "concurrency_id": "device"}
"""How it calls those that compute with a model: one at a time, because all of them share one device."""
LATEST: Mapping[str, Any] = {**QUIET, "trigger_mode": "always_last"}
"""How it shows a new file or run: one answer at a time, and the last one is for what is there now."""


@dataclass(frozen=True)
class Place:
    """Where the visitor is. The page's address has all of it, so a reload, a bookmark or a second tab gets there.

    A step shows itself anew `.then` when `file_changed` or `run_changed`; it goes on to another step by setting `tabs`.
    They do not listen to `file.change` itself: of several such listeners, each that is called again while it works
    makes Gradio 6 call them all, without end.
    """

    file: gr.Textbox
    """The preference file's name; see `handlers.files`."""
    run: gr.Textbox
    """The run's id."""
    settings: gr.BrowserState
    """What the browser keeps of the recipe. Made outside the step, in which it would be empty until that is opened."""
    conversation: gr.BrowserState
    """And of the chat."""
    file_changed: Dependency
    """Goes on with `.then`."""
    run_changed: Dependency
    tabs: gr.Tabs
    opened: Mapping[str, gr.Tab]
    """The tab of each step, for what happens when it is opened."""


def goto(step: str) -> gr.Tabs:
    """Open *step*."""
    return gr.Tabs(selected=step)


def who(request: gr.Request) -> Visitor:
    """Tell who asks.

    Raises:
        SignInError: on a Space, somebody who has not signed in.
    """
    asked = request.request
    return visitor(asked.scope.get("session") if asked else None)


def told(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Show what goes wrong for a reason as a sentence on the page; other errors are bugs, for the server's log."""
    if inspect.isgeneratorfunction(handler):

        @wraps(handler)
        def streaming(*args: Any) -> Any:
            try:
                yield from handler(*args)
            except DPOHubError as error:
                raise sentence(error) from error

        return streaming

    @wraps(handler)
    def telling(*args: Any) -> Any:
        try:
            return handler(*args)
        except DPOHubError as error:
            raise sentence(error) from error

    return telling


def sentence(error: DPOHubError) -> gr.Error:
    """The *error* as the page shows it, with nothing in it that a browser would take for markup."""
    return gr.Error(escape(str(error), quote=False), duration=None, print_exception=False)


def note(text: str) -> str:
    """A line of HTML that says *text*, read out by screen readers when it changes."""
    return f'<p class="note" role="status">{escape(text)}</p>'
