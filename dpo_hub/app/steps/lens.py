"""What it learned: the implicit reward of replies, token by token, and which of them it ranks first."""

from __future__ import annotations

from ...errors import needing_extra
from ..handlers import training
from ..handlers.model_host import MODEL_HOST
from ..markup import compare as markup
from ..place import DEVICE, LATEST, QUIET, Place, note, show_errors, visitor_of

with needing_extra("app"):
    import gradio as gr

REPLIES = 2


def build(place: Place, opened: gr.Tab) -> None:
    """Build the lens, and add its event listeners."""
    said = gr.HTML(note("The trained adapter is a reward model: here is what it thinks of any reply, word by word."))
    prompt = gr.Textbox(value="", label="Prompt", elem_id="lens-prompt")
    with gr.Row():
        replies = [
            gr.Textbox(value="", label=f"Reply {number}", lines=3, elem_id=f"lens-reply-{number}", min_width=260)
            for number in range(1, REPLIES + 1)
        ]
    read = gr.Button("Read them", variant="primary", elem_id="read")
    shown = gr.HTML(elem_id="readings")

    place.run_changed.then(lambda: "", None, shown, **LATEST)
    opened.select(_example, [place.run, prompt], [prompt, *replies], **QUIET)
    read.click(lambda: note("Reading …"), None, said, **QUIET).then(
        _read, [place.run, prompt, *replies], [shown, said], **DEVICE
    ).failure(lambda: note(""), None, said, **QUIET)


@show_errors
def _example(run: str, prompt: str, request: gr.Request) -> tuple[str, ...]:
    """Fill in a held-out pair, unless there is a prompt already."""
    found = None if prompt else training.held_out_example(visitor_of(request), run)
    return found or (gr.skip(),) * (1 + REPLIES)


@show_errors
def _read(run: str, prompt: str, one: str, other: str, request: gr.Request) -> tuple[str, str]:
    written = [reply for reply in (one, other) if reply.strip()]
    return markup.readings(MODEL_HOST.read(visitor_of(request), run, prompt, written)), note("")
