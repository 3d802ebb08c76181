"""The blind votes of step 4: two replies in a hidden order, and which one is better."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from ...comparison.votes import Ballot, Choice
from ...errors import RunError, needing_extra
from ...preferences import text_of
from ..handlers import voting
from ..handlers.model_host import MODEL_HOST
from ..markup import compare as markup
from ..place import DEVICE, LATEST, QUIET, Place, goto, note, show_errors, visitor_of

with needing_extra("app"):
    import gradio as gr

CHOICES: dict[Choice, str] = {
    "left": "Left is better",
    "right": "Right is better",
    "tie": "A tie",
    "both_bad": "Both bad",
}


def build(place: Place, opened: gr.Tab) -> None:
    """Build the votes, and add their event listeners."""
    said = gr.HTML(note("Two replies to the same prompt, one from before and one from after. Which is better?"))
    with gr.Row(equal_height=True):
        asked = gr.Textbox(
            value="",
            label="Ask this",
            info="Left empty, it asks what was held out of training.",
            elem_id="ballot-asked",
            scale=5,
        )
        draw = gr.Button("Show two replies", variant="primary", elem_id="draw", min_width=160)
    prompt = gr.HTML(elem_id="ballot-prompt")
    with gr.Row():
        sides = [
            gr.Textbox(
                value="", label=label, lines=4, interactive=False, elem_id=f"ballot-{label.lower()}", min_width=260
            )
            for label in ("Left", "Right")
        ]
    with gr.Accordion("Neither is right? Write a better one first", open=False):
        edit = gr.Textbox(
            value="",
            label="A better reply",
            info="Then choose the one that comes nearer.",
            lines=3,
            elem_id="ballot-edit",
        )
    with gr.Row():
        buttons = {
            choice: gr.Button(label, interactive=False, elem_id=f"vote-{choice}", min_width=120)
            for choice, label in CHOICES.items()
        }
    result = gr.HTML(elem_id="votes-result")
    on = gr.Button("Make preferences of the votes, for the next round", elem_id="votes-to-file", visible=False)
    ballot: gr.State = gr.State(None)

    shown = [ballot, prompt, *sides, edit, said, *buttons.values()]
    told_result: dict[str, Any] = {"fn": _result, "inputs": place.run, "outputs": [result, on], **QUIET}
    place.run_changed.then(_nothing, None, shown, **LATEST).then(**told_result)
    opened.select(**told_result)
    draw.click(lambda: note("Both sides are writing …"), None, said, **QUIET).then(
        _draw, [place.run, asked], shown, **DEVICE
    ).failure(lambda: note(""), None, said, **QUIET)
    for choice, button in buttons.items():
        button.click(_voting(choice), [place.run, ballot, edit], [ballot, said, *buttons.values()], **QUIET).then(
            **told_result
        ).then(_draw_next, [place.run, asked, ballot, said], shown, **DEVICE)
    on.click(_as_file, place.run, [place.file, place.tabs], **QUIET)


def _nothing() -> list[Any]:
    return [None, "", "", "", "", note(""), *[gr.Button(interactive=False)] * len(CHOICES)]


def _shown(ballot: Ballot, said: str) -> list[Any]:
    asked = f'<p class="asked">{escape(text_of(ballot.prompt))}</p>'
    return [ballot, asked, *ballot.shown, "", said, *[gr.Button(interactive=True)] * len(CHOICES)]


@show_errors
def _draw(run: str, asked: str, request: gr.Request) -> list[Any]:
    return _shown(voting.next_ballot(MODEL_HOST, visitor_of(request), run, asked=asked), note("Which is better?"))


@show_errors
def _draw_next(run: str, asked: str, ballot: Ballot | None, said: str, request: gr.Request) -> list[Any]:
    """Show the next held-out prompt; a prompt that was typed is asked again only on request."""
    if asked.strip() or ballot is not None:
        return [gr.skip()] * (6 + len(CHOICES))
    return _shown(voting.next_ballot(MODEL_HOST, visitor_of(request), run), said)


def _voting(choice: Choice) -> Callable[..., list[Any]]:
    @show_errors
    def vote(run: str, ballot: Ballot | None, edit: str, request: gr.Request) -> list[Any]:
        if ballot is None:
            raise RunError("Press “Show two replies” first.")
        filled = voting.vote(visitor_of(request), run, ballot, choice, edit)
        return [None, markup.revealed(filled.left, choice), *[gr.Button(interactive=False)] * len(CHOICES)]

    return vote


@show_errors
def _result(run: str, request: gr.Request) -> tuple[str, gr.Button]:
    sentences = voting.result(visitor_of(request), run)
    return markup.result(sentences), gr.Button(visible=len(sentences) > 1)


@show_errors
def _as_file(run: str, request: gr.Request) -> tuple[Any, ...]:
    return voting.as_file(visitor_of(request), run), goto("preferences")
