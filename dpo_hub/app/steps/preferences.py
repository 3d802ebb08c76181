"""Step 1: the visitor's own file, a demo file or a dataset on the Hub; how it was read, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import DPOHubError, PreferencesError, needing_extra
from ...preferences import Preferences
from ...preferences.layouts.mapping import PARTS
from ...preferences.repair import REPAIRED_KINDS
from ..handlers import columns, diagnosis, files, writing
from ..handlers.files import Source
from ..markup import preferences as markup
from ..place import DEVICE, LATEST, QUIET, Place, goto, note, show_errors, visitor_of

with needing_extra("app"):
    import gradio as gr

MAPPING_HELP = "For other layouts, such as a=first,b=second,winner=vote. Parts: " + ", ".join(PARTS)


def build(place: Place) -> None:
    """Build the step, and add its event listeners."""
    with gr.Row(equal_height=True):
        source = _sources(place)
    reading = gr.HTML(markup.NO_FILE, elem_id="reading")
    mapping, read_so = _mapping(place)
    preview = _preview(place)
    doctor, repair = _doctor(place)
    written, added = _writing(place)
    on = gr.Button("Next: the recipe", variant="primary", elem_id="to-recipe")

    all_shown = [*source, reading, *mapping, *preview, *doctor, written]
    place.file_changed.then(_show, place.file, all_shown, **LATEST)
    for event in (read_so, repair, *added):  # the file may have changed under the same name
        event.success(_show, place.file, all_shown, **QUIET)
    on.click(lambda: goto("recipe"), None, place.tabs, **QUIET)


def _sources(place: Place) -> list[Any]:
    """The ways to choose a file; returns the components that show which was chosen."""
    upload = gr.File(label="Your file", file_types=list(files.SUFFIXES), height=148, min_width=260)
    title = "Or a demo file: a small shop's support desk"
    demo = gr.Radio(list(files.demo_files().items()), label=title, min_width=300)
    look: dict[str, Any] = {"submit_btn": "Read", "max_lines": 1, "min_width": 260, "elem_id": "hub"}
    hub = gr.Textbox(label="Or a dataset on the Hub", placeholder="owner/name", **look)
    upload.upload(_take, upload, [place.file, upload], **QUIET)
    demo.input(lambda file: file, demo, place.file, **QUIET)
    hub.submit(lambda text: files.hub_file(text) if text.strip() else gr.skip(), hub, place.file, **QUIET)
    return [demo, hub]


def _mapping(place: Place) -> tuple[list[Any], Any]:
    """Inputs to choose which column is which; returns them, and the event of applying them."""
    with gr.Accordion("Columns wrong? Say which is which", open=False, elem_id="mapping") as accordion:
        with gr.Row():
            boxes = [_column(part) for part in columns.MAIN_PARTS]
        others = gr.Textbox(label="Other parts", info=MAPPING_HELP, max_lines=1, elem_id="other-parts")
        button = gr.Button("Read it so", elem_id="read-so")
    event = button.click(_map, [place.file, others, *boxes], place.file, **QUIET)
    return [accordion, *boxes, others], event


def _column(part: str) -> gr.Dropdown:
    title = f"{part.capitalize()}: {PARTS[part]}"
    return gr.Dropdown([], label=title, allow_custom_value=True, min_width=200, elem_id=f"column-{part}")


def _preview(place: Place) -> list[Any]:
    """The pairs, a few on each page."""
    page = gr.State(0)
    pairs = gr.HTML(elem_id="pairs")
    with gr.Row(elem_id="pager", visible=False) as pager:
        previous = gr.Button("Previous", size="sm", scale=0, min_width=110, elem_id="previous")
        where = gr.HTML(elem_id="where")
        following = gr.Button("Next", size="sm", scale=0, min_width=110, elem_id="next")
    shown = [page, pairs, pager, previous, where, following]
    previous.click(_back, [place.file, page], shown, **QUIET)
    following.click(_on, [place.file, page], shown, **QUIET)
    return shown


def _doctor(place: Place) -> tuple[list[Any], Any]:
    """What the doctor found, and the lengths of replies; returns the components, and the event of a repair."""
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            findings = gr.HTML(elem_id="findings")
            button = gr.Button("Repair", size="md", visible=False, elem_id="repair")
        with gr.Column(scale=2, min_width=300):
            lengths = gr.HTML(elem_id="lengths")
    return [findings, button, lengths], button.click(_repair, place.file, place.file, **QUIET)


def _writing(place: Place) -> tuple[Any, list[Any]]:
    """Inputs to write pairs in; returns the count of pairs, and the events of adding one."""
    with gr.Accordion("Write preferences here", open=False, elem_id="write"):
        prompt = gr.Textbox(label="Prompt", lines=2, max_length=4_000, elem_id="write-prompt")
        draft = gr.Button("Write two replies", elem_id="draft")
        said = gr.HTML(elem_id="write-note")
        with gr.Row():
            replies = [_reply(side) for side in "AB"]
        with gr.Row():
            better = [gr.Button(f"{side} is better", elem_id=f"{side.lower()}-better") for side in "AB"]
        written = gr.HTML(elem_id="written")
    draft.click(_draft, prompt, [*replies, said], **DEVICE)
    texts = [place.file, prompt, *replies]
    added = [
        button.click(_add, [place.file, prompt, *order], texts, **QUIET)
        for button, order in zip(better, (replies, replies[::-1]), strict=True)
    ]
    return written, added


def _reply(side: str) -> gr.Textbox:
    return gr.Textbox(label=f"Reply {side}", lines=4, max_length=20_000, min_width=280, elem_id=f"reply-{side.lower()}")


@show_errors
def _take(path: str, request: gr.Request) -> tuple[str, None]:
    return files.save_upload(visitor_of(request).shelf, Path(path)), None


@show_errors
def _map(file: str, others: str, request: gr.Request, *named: str | None) -> str:
    if not file:
        raise PreferencesError("Choose a file first.")
    return files.map_columns(visitor_of(request).shelf, file, columns.mapping_of(named, others))


@show_errors
def _repair(file: str, request: gr.Request) -> str:
    return diagnosis.repaired(visitor_of(request).shelf, file)


@show_errors
def _draft(prompt: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
    visitor_of(request)  # the device is for visitors only
    yield gr.skip(), gr.skip(), note("Writing …" if writing.loaded() else "Loading the demo model, once …")
    try:
        yield *writing.drafts(prompt), note("")
    except DPOHubError:
        yield gr.skip(), gr.skip(), note("")
        raise


@show_errors
def _add(file: str, prompt: str, chosen: str, rejected: str, request: gr.Request) -> tuple[str, str, str, str]:
    return writing.add_pair(visitor_of(request).shelf, file, prompt, chosen, rejected), "", "", ""


@show_errors
def _back(file: str, page: int, request: gr.Request) -> list[Any]:
    return _page(files.read(files.find(visitor_of(request).shelf, file)), page - 1)


@show_errors
def _on(file: str, page: int, request: gr.Request) -> list[Any]:
    return _page(files.read(files.find(visitor_of(request).shelf, file)), page + 1)


def _show(file: str, request: gr.Request) -> Iterator[list[Any]]:
    """Show the file in all components: first what is quick, so that nothing of the previous file remains."""
    chosen = [file if file.startswith(files.DEMO) else None, file.removeprefix(files.HUB) if _on_hub(file) else ""]
    if not file:
        yield [*chosen, markup.NO_FILE, *_columns(None, None), *_no_page(), *_no_findings(), ""]
        return
    source = None
    try:
        source = files.find(visitor_of(request).shelf, file)
        found = files.read(source)
    except DPOHubError as error:
        yield [*chosen, markup.error(str(error)), *_columns(source, None), *_no_page(), *_no_findings(), ""]
        return
    own = file if files.downloadable(file, source) else ""
    shown = [*chosen, markup.reading(found, source.note, own), *_columns(source, found)]
    yield [*shown, *_page(found, 0), *_no_findings(), _count(source, found)]
    yield [*(gr.skip() for _ in (*shown, *_no_page())), *_examined(source, found), gr.skip()]


def _on_hub(file: str) -> bool:
    return file.startswith(files.HUB)


def _count(source: Source, found: Preferences) -> str:
    pairs = len(found.pairs)
    return note(f"{pairs:,} {'pair' if pairs == 1 else 'pairs'} written in this file.") if source.written else ""


def _columns(source: Source | None, found: Preferences | None) -> list[Any]:
    """The inputs of the mapping, opened if the file could not be read."""
    choices = columns.columns_of(source) if source else []
    names, others = columns.mapping_shown(source, found) if source else ([None] * len(columns.MAIN_PARTS), "")
    accordion = gr.Accordion(open=bool(choices) and found is None, visible=bool(source))
    return [accordion, *(gr.Dropdown(choices=choices, value=name) for name in names), others]


def _page(found: Preferences, page: int) -> list[Any]:
    total = len(found.pairs)
    last = (total - 1) // markup.PAGE_SIZE
    page = max(0, min(page, last))
    pairs = found.pairs[page * markup.PAGE_SIZE : (page + 1) * markup.PAGE_SIZE]
    previous, following = gr.Button(interactive=page > 0), gr.Button(interactive=page < last)
    pager = gr.Row(visible=last > 0)
    return [page, markup.pairs(pairs), pager, previous, markup.place(page, total), following]


def _no_page() -> list[Any]:
    return [0, "", gr.Row(visible=False), gr.skip(), "", gr.skip()]


def _no_findings() -> list[Any]:
    return ["", gr.Button(visible=False), ""]


def _examined(source: Source, found: Preferences) -> list[Any]:
    seen = diagnosis.examined(source)
    mends = bool(found.left_out or any(finding.kind in REPAIRED_KINDS for finding in seen.findings)) and not source.note
    cards = markup.findings(seen.findings, dict(seen.samples), diagnosis.SAMPLES)
    return [cards, gr.Button(visible=mends), markup.lengths(seen.chosen, seen.rejected)]
