"""Step 5: publish to the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...errors import needing_extra
from ..handlers import publishing
from ..handlers.publishing import Publication, PublishOptions
from ..markup import publish as markup
from ..place import LATEST, QUIET, Place, show_errors, visitor_of
from ..visitors import on_space

with needing_extra("app"):
    import gradio as gr

TOKEN = "From huggingface.co/settings/tokens, with write access. Leave it empty to use your own login (hf auth login)."
DESCRIPTION = "A paragraph or more, in Markdown, that stands below the card's title: what this is for, and for whom."


def build(place: Place) -> None:
    """Build the step, and add its event listeners."""
    empty = gr.HTML(markup.NO_RUN)
    # Not a State: it has to change together with the description that the browser shows.
    shown = gr.Textbox("", visible="hidden", show_label=False)
    with gr.Column(visible=False) as all_of_it:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                wanted, description, token = _fields()
                button = gr.Button("Publish", variant="primary", elem_id="publish")
                stages = gr.HTML(elem_id="publishing")
            with gr.Column(scale=3, min_width=320):
                card = _card()
        elsewhere = _elsewhere()

    fields = [shown, *wanted, description]
    look: dict[str, Any] = {"fn": _preview, "inputs": fields, "outputs": card, **LATEST}
    opened = [empty, all_of_it, shown, wanted[0], description, *elsewhere, stages]
    # One after the other, so that the second call finds the run shown, and keeps what was typed meanwhile.
    events = [place.run.change, place.opened["publish"].select]
    gr.on(events, _open, [place.run, shown], opened, **LATEST).then(**look)
    _wire(shown, wanted, description, look)
    limits = {**QUIET, "concurrency_limit": 2, "concurrency_id": "publish"}
    button.click(_publish, [*fields, token], [stages, button, token], **limits).then(
        lambda: gr.Button("Publish", interactive=True), None, button, **QUIET
    )


def _wire(shown: gr.Textbox, wanted: list[Any], description: gr.Textbox, look: dict[str, Any]) -> None:
    """Save the description, and update the card preview, while the visitor types."""
    description.input(_describe, [shown, description], None, **LATEST).then(**look)
    for box in (wanted[0], wanted[2]):
        box.change(**look)


def _fields() -> tuple[list[Any], gr.Textbox, gr.Textbox]:
    """The fields of `PublishOptions`, the description, and the token."""
    repo = gr.Textbox(
        "", label="Repository", placeholder="your-name/tone", info="owner/name on the Hub.", elem_id="repo"
    )
    description = gr.Textbox("", label="Description", info=DESCRIPTION, lines=4, max_length=publishing.LONGEST)
    token = gr.Textbox("", label="Token", info=TOKEN, type="password", visible=not on_space(), elem_id="token")
    private = gr.Checkbox(True, label="Private: only you see it")
    with_data = gr.Checkbox(label="With the pairs, as a dataset", info="As owner/name-preferences.")
    merged = gr.Checkbox(label="With a merged model", info="As owner/name-merged; takes the base model's size.")
    overwrite = gr.Checkbox(label="Write over changes made there", info="By other means than publishing (--overwrite).")
    return [repo, private, with_data, merged, overwrite], description, token


def _card() -> list[Any]:
    """The card, and its metadata."""
    gr.HTML('<h3 class="card-title">The card, as it will be on the Hub</h3>')
    text = gr.Markdown(
        sanitize_html=True, latex_delimiters=[], max_height=620, container=True, elem_id="card", padding=True
    )
    with gr.Accordion("Metadata", open=False):
        metadata = gr.Code(language="yaml", interactive=False, show_label=False, lines=3, elem_classes="narrow")
    return [text, metadata]


def _elsewhere() -> list[Any]:
    """Ways to get the model other than the Hub."""
    with gr.Accordion("Use it elsewhere", open=False):
        download = gr.HTML()
        # On a Space the run is not on the visitor's machine, where these commands would be typed.
        look: dict[str, Any] = {"language": "shell", "interactive": False, "lines": 4, "elem_classes": "narrow"}
        commands = gr.Code(label="As one model, for Ollama too", visible=not on_space(), **look)
    return [download, commands]


@show_errors
def _open(run_id: str, shown: str, request: gr.Request) -> list[Any]:
    """Show the run if it has finished; what was typed for it stays."""
    run = publishing.publishable(visitor_of(request), run_id) if run_id else None
    if run is None:
        return [gr.HTML(visible=True), gr.Column(visible=False), "", *[gr.skip()] * 4, ""]
    if run.id == shown:
        return [gr.HTML(visible=False), gr.Column(visible=True), *[gr.skip()] * 6]
    return [
        gr.HTML(visible=False),
        gr.Column(visible=True),
        run.id,
        publishing.suggested_repo(visitor_of(request), run),
        publishing.description(run),
        markup.download(run.id),
        publishing.commands(run),
        "",
    ]


@show_errors
def _describe(shown: str, description: str, request: gr.Request) -> None:
    if shown:
        publishing.describe(visitor_of(request), shown, description)


@show_errors
def _preview(shown: str, request: gr.Request, *asked: Any) -> tuple[Any, Any]:
    *wanted, description = asked
    run = publishing.publishable(visitor_of(request), shown) if shown else None
    if run is None:
        return gr.skip(), gr.skip()
    card = publishing.preview(run, PublishOptions(*wanted), description)
    return card.text, card.metadata


@show_errors
def _publish(shown: str, request: gr.Request, *asked: Any) -> Iterator[tuple[Any, ...]]:
    *wanted, description, token = asked
    visitor = visitor_of(request)
    publishing.describe(visitor, shown, description)
    yield markup.progress(Publication(("Getting ready",))), gr.Button("Publishing …", interactive=False), ""
    for goes in publishing.publish_with_progress(visitor, shown, PublishOptions(*wanted), token=token):
        yield markup.progress(goes), gr.skip(), gr.skip()
