"""Step 4: the model before and after, in a chat, in blind votes, and by what it learned to like."""

from __future__ import annotations

from ...errors import needing_extra
from ..place import Place
from . import chat, lens, votes

with needing_extra("app"):
    import gradio as gr

PARTS = {"chat": ("Chat", chat), "votes": ("Blind vote", votes), "lens": ("What it learned", lens)}


def build(place: Place) -> None:
    """Build the step."""
    with gr.Tabs(elem_id="parts"):
        for name, (title, part) in PARTS.items():
            with gr.Tab(title, id=name, elem_id=f"part-{name}") as opened:
                part.build(place, opened)
