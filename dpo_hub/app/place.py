"""What the steps of the page share: where the visitor is, who they are, and how errors are shown to them."""

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
"""The titles of the steps, by their names in the URL."""
QUIET: Mapping[str, Any] = {"api_visibility": "private", "concurrency_limit": None, "show_progress": "hidden"}
"""Options for the page's own event listeners."""
DIRECT: Mapping[str, Any] = {**QUIET, "queue": False}
"""Options for listeners that fire repeatedly: they bypass Gradio's queue, which costs more than the handlers."""
DEVICE: Mapping[str, Any] = {**QUIET, "concurrency_limit": 1, "concurrency_id": "device"}
"""Options for listeners that compute with a model: one at a time, because they share one device."""
LATEST: Mapping[str, Any] = {**QUIET, "trigger_mode": "always_last"}
"""Options for listeners to values that change quickly: one call at a time, and the last is for the current value."""


@dataclass(frozen=True)
class Place:
    """Where the visitor is. The page's URL has file, run and step, so a reload, bookmark or second tab leads there.

    A step updates with `.then` after `file_changed` or `run_changed`; it opens another step by setting `tabs`. Steps
    do not listen to `file.change` or `run.change` themselves, except that Publish alone listens to `run.change`: with
    several such listeners, one that is triggered again while it runs makes Gradio 6 trigger all of them, endlessly.
    """

    file: gr.Textbox
    """The preference file's name; see `handlers.files`."""
    run: gr.Textbox
    """The run's id."""
    settings: gr.BrowserState
    """What the browser keeps of the recipe. Created outside its step: inside, it is empty until the step is opened."""
    conversation: gr.BrowserState
    """What the browser keeps of the chat."""
    file_changed: Dependency
    """The event that steps chain to with `.then`."""
    run_changed: Dependency
    tabs: gr.Tabs
    opened: Mapping[str, gr.Tab]
    """The tab of each step, for listeners to its opening."""


def goto(step: str) -> gr.Tabs:
    """Open *step*."""
    return gr.Tabs(selected=step)


def visitor_of(request: gr.Request) -> Visitor:
    """Return the visitor who sent *request*.

    Raises:
        SignInError: this is a Space, and they have not signed in.
    """
    asked = request.request
    return visitor(asked.scope.get("session") if asked else None)


def show_errors(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Show a `DPOHubError` as a sentence on the page; other errors are bugs, and go to the server's log."""
    if inspect.isgeneratorfunction(handler):

        @wraps(handler)
        def stream_wrapper(*args: Any) -> Any:
            try:
                yield from handler(*args)
            except DPOHubError as error:
                raise gradio_error(error) from error

        return stream_wrapper

    @wraps(handler)
    def wrapper(*args: Any) -> Any:
        try:
            return handler(*args)
        except DPOHubError as error:
            raise gradio_error(error) from error

    return wrapper


def gradio_error(error: DPOHubError) -> gr.Error:
    """The *error* as the page shows it, escaped so that a browser finds no markup in it."""
    return gr.Error(escape(str(error), quote=False), duration=None, print_exception=False)


def note(text: str) -> str:
    """A line of HTML with *text*; screen readers announce it when it changes."""
    return f'<p class="note" role="status">{escape(text)}</p>'
