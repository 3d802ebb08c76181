"""Step 3: the progress of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import SignInError, needing_extra
from ..handlers import training
from ..markup import hint
from ..markup import train as markup
from ..place import DIRECT, LATEST, QUIET, Place, goto, show_errors, visitor_of

with needing_extra("app"):
    import gradio as gr

REFRESH_SECONDS = 1.5
"""Seconds between two updates of a run. The curves are never older than 2 s; on a CPU, updates slow the run down."""


def build(place: Place) -> None:
    """Build the step, and add its event listeners."""
    panel = gr.HTML(markup.NO_RUN, elem_id="progress")
    findings = gr.HTML(elem_id="health")
    with gr.Row():
        stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
        resume = gr.Button("Resume", visible=False, elem_id="resume")
        on = gr.Button("Next: compare before and after", variant="primary", visible=False, elem_id="to-compare")
        remove = gr.Button("Remove this run …", visible=False, elem_id="remove")
    with gr.Row(visible=False) as sure:
        gr.HTML('<p class="hint">It takes the run, its adapter and its votes with it, for good.</p>')
        yes = gr.Button("Remove it", variant="stop", elem_id="remove-yes")
        no = gr.Button("Keep it")
    curves, samples = gr.HTML(elem_id="curves"), gr.HTML(elem_id="samples")
    with gr.Accordion("Log", open=False, visible=False) as logged:
        log = gr.Textbox(lines=8, max_lines=14, interactive=False, label="Log", show_label=False, elem_classes="log")
    drawn, timer = gr.State(""), gr.Timer(REFRESH_SECONDS, active=False)

    watch: dict[str, Any] = {
        "fn": _watch,
        "inputs": [place.run, drawn],
        "outputs": [drawn, timer, panel, stop, resume, on, remove, findings, curves, samples, logged, log],
        **DIRECT,
    }
    place.run_changed.then(lambda: ("", gr.Row(visible=False)), None, [drawn, sure], **LATEST).then(**watch)
    timer.tick(**watch)
    for button, do in ((stop, training.stop_training), (resume, training.resume_training)):
        button.click(_doing(do), place.run, None, **QUIET).then(**watch)
    on.click(lambda: goto("compare"), None, place.tabs, **QUIET)
    for button, shown in ((remove, True), (no, False)):
        button.click(lambda shown=shown: gr.Row(visible=shown), None, sure, **QUIET)
    yes.click(_doing(training.remove_run), place.run, None, **QUIET).success(lambda: "", None, place.run, **QUIET)


def _doing(do: Callable[..., None]) -> Callable[..., None]:
    @show_errors
    def doing(run: str, request: gr.Request) -> None:
        do(visitor_of(request), run)

    return doing


@show_errors
def _watch(run: str, drawn: str, request: gr.Request) -> list[Any]:
    """Show the run's progress. *drawn* says what the page already shows; unchanged parts are left alone."""
    try:
        progress = training.progress(visitor_of(request), run) if run else None
    except SignInError as error:  # the sign-in has expired; shown once, not at each update
        return _no_run(hint(str(error)))
    if progress is None:
        return _no_run(markup.NO_RUN)
    now = f"{run} {progress.step} {progress.status} {len(progress.evaluations)}"
    new = now != drawn
    return [
        now,
        gr.Timer(active=not progress.ended),
        markup.panel(progress),
        gr.Button(visible=not progress.ended),
        gr.Button(visible=progress.resumable),
        gr.Button(visible=progress.finished),
        gr.Button(visible=progress.ended),
        markup.findings(progress.findings) if new else gr.skip(),
        markup.curves(progress) if new else gr.skip(),
        markup.samples(progress) if new else gr.skip(),
        gr.Accordion(visible=True),
        progress.log,
    ]


def _no_run(why: str) -> list[Any]:
    """The components without a run, with the reason."""
    buttons = [gr.Button(visible=False)] * 4
    return ["", gr.Timer(active=False), why, *buttons, "", "", "", gr.Accordion(visible=False), ""]
