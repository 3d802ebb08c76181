"""The chat of step 4: one question, and all sides' replies next to each other as they are written."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from ...errors import DPOHubError, needing_extra
from ..handlers import training
from ..handlers.model_host import MODEL_HOST, Conversation, Message, training_notice
from ..place import DEVICE, LATEST, QUIET, Place, note, show_errors, visitor_of

with needing_extra("app"):
    import gradio as gr

SIDES = (
    ("before", "before", "Before", "The base model answers here."),
    ("after", "after", "After", "The tuned model answers here."),
    ("other", "after", "The other run", "The other tuned model answers here."),
)
READY = "Ask both sides"
NOT_READY = "Opens when a run has finished"
LOADING = "Loading the models, once for this run …"


def build(place: Place, opened: gr.Tab) -> None:
    """Build the chat, and add its event listeners."""
    look: dict[str, Any] = {"height": 340, "min_width": 260, "buttons": []}
    look |= {"render_markdown": False, "sanitize_html": True, "latex_delimiters": []}
    with gr.Row():
        before, after, other = (
            gr.Chatbot(label=label, placeholder=hint, elem_id=name, elem_classes=kind, visible=name != "other", **look)
            for name, kind, label, hint in SIDES
        )
    said = gr.HTML(elem_id="note")
    with gr.Row(equal_height=True):
        suggestions = [
            gr.Button(visible=False, size="sm", min_width=240, elem_classes="suggestion")
            for _ in range(training.SUGGESTIONS)
        ]
    with gr.Row(equal_height=True):
        message = gr.Textbox(
            placeholder=NOT_READY, interactive=False, show_label=False, label="Message", elem_id="message", scale=6
        )
        send = gr.Button("Send", variant="primary", interactive=False, elem_id="send", min_width=90)
        stop = gr.Button("Stop", visible=False, elem_id="stop-replies", min_width=90)
        clear = gr.Button("Clear", elem_id="clear", min_width=90)
    with gr.Accordion("More", open=False), gr.Row():
        system = gr.Textbox(
            label="System message", value="", info="Given to all sides before the chat.", elem_id="system"
        )
        third = gr.Dropdown([], label="Compare with another run, too", info="On the same base model.", elem_id="third")
    conversation = gr.State(Conversation())
    kept = place.conversation

    chats = [conversation, before, after, other]
    ready = [message, send, said, third, *suggestions]
    restored: dict[str, Any] = {"fn": _restore, "inputs": [place.run, kept], "outputs": [*chats, kept], **LATEST}
    place.run_changed.then(**restored).then(_open, [place.run, third], ready, **LATEST)
    for tab in (opened, place.opened["compare"]):
        tab.select(_open_to_load, [place.run, third], ready, **QUIET).then(_warm, place.run, said, **DEVICE)
    third.input(_forget, None, [*chats, kept], **QUIET)
    third.change(_show_other, third, other, **QUIET)
    asks: list[Any] = []
    for trigger, text in ((message.submit, message), (send.click, message), *((b.click, b) for b in suggestions)):
        asks.append(
            trigger(
                _ask,
                [place.run, third, text, system, conversation],
                [*chats, message, said, stop, kept],
                **DEVICE,
            )
        )
    stop.click(_stopped, [place.run, conversation], [said, stop, kept], cancels=asks, **QUIET)
    clear.click(_forget, None, [*chats, kept], **QUIET)


def _forget() -> tuple[Any, ...]:
    return Conversation(), [], [], [], None


@show_errors
def _restore(run: str, kept: object, request: gr.Request) -> tuple[Any, ...]:
    """After a reload, show the conversation that the browser kept about this run."""
    found = Conversation.from_kept(kept, run, visitor_of(request)) if run else None
    return (found, *_shown(found), gr.skip()) if found else _forget()


def _show_other(other: str | None) -> gr.Chatbot:
    return gr.Chatbot(visible=bool(other), label=other or "")


def _stopped(run: str, conversation: Conversation) -> tuple[Any, ...]:
    return note("Stopped."), gr.Button(visible=False), conversation.kept(run)


@show_errors
def _open(run: str, third: str | None, request: gr.Request) -> list[Any]:
    """Update the input, the note, the other runs and the suggestions, once there is a model to chat with."""
    visitor = visitor_of(request)
    prompts = training.suggestions(visitor, run) if run else []
    ready, others = bool(prompts), training.comparable(visitor, run)
    prompts += [""] * (training.SUGGESTIONS - len(prompts))
    return [
        gr.Textbox(interactive=ready, placeholder=READY if ready else NOT_READY),
        gr.Button(interactive=ready),
        note("Try a prompt that was not trained on:" if ready else ""),
        gr.Dropdown(["", *others], value=third if third in others else ""),
        *(gr.Button(prompt, visible=bool(prompt)) for prompt in prompts),
    ]


def _open_to_load(run: str, third: str | None, request: gr.Request) -> list[Any]:
    """As `_open`, with a note that the models are being loaded."""
    opened: list[Any] = _open(run, third, request)
    if run and not MODEL_HOST.has(run):
        opened[2] = note(LOADING)
    return opened


@show_errors
def _warm(run: str, request: gr.Request) -> str:
    """Load the models while the visitor thinks of a question."""
    visitor = visitor_of(request)
    if run and training.suggestions(visitor, run):
        MODEL_HOST.ready(visitor, run)
        return note(training_notice() or "Ready. Try a prompt that was not trained on:")
    return ""


@show_errors
def _ask(
    run: str, third: str, text: str, system: str, conversation: Conversation, request: gr.Request
) -> Iterator[tuple[Any, ...]]:
    if not text.strip():
        yield (gr.skip(),) * 8
        return
    visitor, runs = visitor_of(request), [run, third] if third else [run]
    asked = conversation.for_visitor(visitor).asking(text.strip(), len(runs) + 1)
    wait = training_notice() or "Writing …" if MODEL_HOST.has(*runs) else LOADING
    yield asked, *_shown(asked), "", note(wait), gr.Button(visible=True), gr.skip()
    try:
        for answered in MODEL_HOST.answer(visitor, runs, asked, system=system):
            yield answered, *_shown(answered), *[gr.skip()] * 4
    except DPOHubError:
        yield *[gr.skip()] * 5, note(""), gr.Button(visible=False), gr.skip()
        raise
    yield *[gr.skip()] * 5, note(""), gr.Button(visible=False), answered.kept(run)


def _shown(conversation: Conversation) -> tuple[list[Message], ...]:
    """The chats for the page, escaped, because the chat component lets some markup through."""
    chats = (*conversation.chats, ())[:3]
    return tuple(
        [{"role": message["role"], "content": escape(message["content"], quote=False)} for message in chat]
        for chat in chats
    )
