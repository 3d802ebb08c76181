"""The page: five steps and, beside them, the list of runs. What each step does is in `steps`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from ..errors import SignInError, needing_extra
from ..runs.progress import Progress, progress
from ..runs.run import Run
from ..runs.state import ENDED
from . import api, markup
from .handlers import files
from .markup import runs as runs_markup
from .place import DIRECT, LATEST, QUIET, STEPS, Place, goto, show_errors, visitor_of
from .steps import compare, preferences, publish, recipe, train
from .visitors import signs_in

with needing_extra("app"):
    import gradio as gr
    from gradio.events import Dependency

LISTED = 30
"""The most runs in the list; the newest are shown."""

HEAD = """<script>
function remember(name, value) {
  if (name === "step" && !window.here) return;  // the first tab opens before the address is read
  const url = new URL(window.location);
  if (value) url.searchParams.set(name, value); else url.searchParams.delete(name);
  window.history.replaceState(null, "", url);
}
function arrived() {
  window.here = true;
  window.dispatchEvent(new Event("resize"));  // Gradio folds tabs away by sizes from before the styles came
}
</script>"""
"""Keeps the visitor's place in the page's URL."""

QUEUE_POLL_SECONDS = 0.02
"""Seconds between two checks of Gradio's queue for calls. Its own 1,000 a second wake CPUs that a run trains on."""


def build() -> gr.Blocks:
    """Build the page. Loads no torch."""
    page: gr.Blocks
    with gr.Blocks(title="dpo_hub", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        with gr.Sidebar(label="Runs", open=False, width=300):
            gr.HTML('<h2 class="aside">Runs</h2>')
            runs = gr.HTML(runs_markup.NO_RUNS, elem_id="runs")
            new = gr.Button("New run", size="sm")
        gr.HTML(markup.HEADER)
        if signs_in():
            gr.LoginButton(size="sm", elem_id="sign-in")
        # Not States: the URL needs their values in the browser.
        file, run = (gr.Textbox(visible="hidden", elem_id=name, show_label=False) for name in ("file", "run"))
        # Not a real secret: what the browser keeps has to survive a restart of the app.
        settings, chat = (
            gr.BrowserState(storage_key=f"dpo_hub-{name}", secret="dpo_hub") for name in ("recipe", "chat")
        )
        opened: dict[str, gr.Tab] = {}
        with gr.Tabs(elem_id="steps") as tabs:
            for name, title in STEPS.items():
                opened[name] = gr.Tab(title, id=name, elem_id=f"step-{name}")
        file_changed, run_changed = (_remember(name, box) for name, box in (("file", file), ("run", run)))
        place = Place(file, run, settings, chat, file_changed, run_changed, tabs, opened)
        for name, step in zip(STEPS, (preferences, recipe, train, compare, publish), strict=True):
            with opened[name]:
                step.build(place)
        _wire(page, place, runs, new)
        api.expose()
    api.hide_other_handlers(page)
    page._queue.sleep_when_free = QUEUE_POLL_SECONDS  # Gradio has no setting for it
    return page


def _remember(name: str, box: gr.Textbox) -> Dependency:
    """Keep the value of *box* in the page's URL; returns its change event."""
    return box.change(None, box, None, js=f'(value) => remember("{name}", value)', **QUIET)


def _wire(page: gr.Blocks, place: Place, runs: gr.HTML, new: gr.Button) -> None:
    timer = gr.Timer(5.0, active=False)
    listing: dict[str, Any] = {"fn": _runs, "inputs": place.run, "outputs": [runs, timer], **DIRECT, **LATEST}
    page.load(_arrive, None, [place.file, place.run, place.tabs], **QUIET).then(**listing, js="() => { arrived(); }")
    place.run_changed.then(**listing)
    timer.tick(**listing)
    for name, tab in place.opened.items():
        tab.select(None, None, None, js=f'() => remember("step", "{name}")', **QUIET)
    new.click(lambda: ("", goto("preferences")), None, [place.run, place.tabs], **QUIET)


def _arrive(request: gr.Request) -> tuple[Any, ...]:
    """Open what the page's URL names: a file, a run if it is this visitor's, and a step."""
    asked = request.query_params
    try:
        found = visitor_of(request).run(asked.get("run", ""))
    except SignInError:
        return "", "", gr.skip()
    step = asked.get("step", "train" if found else "")
    file = asked.get("file") or next(iter(files.demo_files().values()))
    # A visitor who clicks while the page loads must not be sent back to its first step.
    return file, found.id if found else "", goto(step) if step in STEPS else gr.skip()


@show_errors
def _runs(current: str, request: gr.Request) -> tuple[str, gr.Timer]:
    """List the runs, and refresh the list as long as one is waiting or running."""
    try:
        found = _listed(visitor_of(request).runs()[:LISTED])
    except SignInError as error:
        return markup.hint(str(error)), gr.Timer(active=False)
    return runs_markup.runs(found, current), gr.Timer(active=any(goes.status not in ENDED for _, goes in found))


def _listed(runs: Iterable[Run]) -> list[tuple[Run, Progress]]:
    found = []
    for run in runs:
        with suppress(FileNotFoundError):  # it was removed just now
            found.append((run, progress(run)))
    return found
