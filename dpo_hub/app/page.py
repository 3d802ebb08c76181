"""The page: preferences, training, progress and chat, from top to bottom. What it does is in `handlers`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, fields
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from ..errors import DPOHubError, needing_extra
from ..recipe import DEMO_MODEL, Recipe
from . import handlers, markup
from .handlers import Conversation, Progress, Stage

with needing_extra("app"):
    import gradio as gr
    import pandas as pd  # type: ignore[import-untyped]  # comes with gradio, without stubs

MAIN_SETTINGS = ("model", "beta", "epochs", "learning_rate")
MODELS = (DEMO_MODEL, "HuggingFaceTB/SmolLM2-135M-Instruct", "Qwen/Qwen2.5-0.5B-Instruct")
FILE_TYPES = [".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet", ".gz"]
CURVES = {"loss": "Loss", "margin": "Margin", "reward_accuracy": "Reward accuracy"}

READY = "Ask something: both sides get the same question"
NOT_READY = "The chat opens when a run has finished"

REMEMBER_RUN = """(run) => {
  const url = new URL(window.location);
  if (run) { url.searchParams.set("run", run); window.history.replaceState(null, "", url); }
}"""
"""Puts the run into the page's address, so that a reload or a bookmark finds it again."""

P = ParamSpec("P")
R = TypeVar("R")


def _told(handler: Callable[P, R]) -> Callable[P, R]:
    """Show what goes wrong for a reason as a sentence on the page; other errors are bugs, for the server's log."""

    @wraps(handler)
    def telling(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return handler(*args, **kwargs)
        except DPOHubError as error:
            raise _sentence(error) from error

    return telling


def _sentence(error: DPOHubError) -> gr.Error:
    return gr.Error(escape(str(error), quote=False), duration=None, print_exception=False)


@dataclass(frozen=True)
class Choosing:
    """Step 1: a file of one's own or a demo file, and what it was read as."""

    upload: gr.File
    demo: gr.Radio
    reading: gr.HTML


@dataclass(frozen=True)
class Setting:
    """Step 2: the recipe's fields, in the recipe's order, and the buttons."""

    fields: list[Any]
    train: gr.Button
    stop: gr.Button


@dataclass(frozen=True)
class Watching:
    """Step 3: how the run goes."""

    panel: gr.HTML
    details: gr.Column
    curves: list[gr.LinePlot]
    samples: gr.HTML
    log: gr.Textbox


@dataclass(frozen=True)
class Chatting:
    """Step 4: both sides."""

    before: gr.Chatbot
    after: gr.Chatbot
    message: gr.Textbox
    note: gr.HTML
    suggestions: list[gr.Button]


def build() -> gr.Blocks:
    """Build the page. Loads no torch."""
    page: gr.Blocks
    with gr.Blocks(title="dpo_hub", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.HTML(markup.HEADER)
        choosing = _choosing()
        setting = _setting()
        watching = _watching()
        chatting = _chatting()
        _wire(page, choosing, setting, watching, chatting)
    return page


def _step(number: int, title: str, hint: str) -> None:
    gr.HTML(markup.step_title(number, title, hint))


def _choosing() -> Choosing:
    _step(1, "Preferences", "CSV, JSON, JSON Lines or Parquet. Columns are recognised by their names.")
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            upload = gr.File(label="Your file", file_types=FILE_TYPES, height=132)
            demo = gr.Radio(list(handlers.demo_files().items()), label="Or a demo file: a small shop's support desk")
        with gr.Column(scale=2, min_width=320):
            reading = gr.HTML(elem_id="reading")
    return Choosing(upload, demo, reading)


def _setting() -> Setting:
    _step(2, "Training", "The settings are safe to leave as they are.")
    boxes: dict[str, Any] = {}
    start = Recipe.for_model()
    settings = {setting.name: setting for setting in fields(Recipe)}
    with gr.Row():
        for name in MAIN_SETTINGS:
            boxes[name] = _box(settings[name], getattr(start, name))
    with gr.Accordion("Advanced", open=False), gr.Row():
        for name, setting in settings.items():
            if name not in MAIN_SETTINGS:
                boxes[name] = _box(setting, getattr(start, name))
    with gr.Row():
        train = gr.Button("Train", variant="primary", size="lg", scale=3, elem_id="train")
        stop = gr.Button("Stop", variant="stop", size="lg", scale=1, visible=False, elem_id="stop")
    return Setting([boxes[name] for name in settings], train, stop)


def _box(setting: Field[Any], value: Any) -> Any:
    """The box for one field of the recipe, by its type."""
    label = setting.name.replace("_", " ").capitalize().replace("Lora", "LoRA").replace("Sft", "SFT")
    look: dict[str, Any] = {
        "label": label,
        "info": setting.metadata["help"],
        "elem_id": setting.name,
        "min_width": 200,
        "elem_classes": "setting",
    }
    if setting.name == "model":
        return gr.Dropdown(list(MODELS), value=value, allow_custom_value=True, **look)
    if choices := setting.metadata["choices"]:
        return gr.Dropdown(list(choices), value=value, **look)
    if setting.type == "bool":
        return gr.Checkbox(value, **look)
    return gr.Number(value, precision=0 if setting.type == "int" else None, **look)


def _watching() -> Watching:
    _step(3, "Progress", "Goes on when you close this page.")
    panel = gr.HTML(markup.NO_RUN, elem_id="progress")
    with gr.Column(visible=False) as details:
        with gr.Row():
            curves = [
                gr.LinePlot(
                    x="step", y=name, title=title, x_title="step", y_title=" ", height=210, min_width=260, buttons=[]
                )
                for name, title in CURVES.items()
            ]
        samples = gr.HTML(elem_id="samples")
        with gr.Accordion("Log", open=False):
            log = gr.Textbox(lines=8, max_lines=14, interactive=False, show_label=False, elem_classes="log")
    return Watching(panel, details, curves, samples, log)


def _chatting() -> Chatting:
    _step(4, "Before and after", "The base model on the left, the same model with the new adapter on the right.")
    look: dict[str, Any] = {"height": 320, "min_width": 300, "buttons": []}
    look |= {"render_markdown": False, "sanitize_html": True, "latex_delimiters": []}
    with gr.Row():
        before = gr.Chatbot(label="Before", placeholder="The base model answers here.", elem_id="before", **look)
        after = gr.Chatbot(label="After", placeholder="The tuned model answers here.", elem_id="after", **look)
    note = gr.HTML(elem_id="note")
    with gr.Row(equal_height=True):
        suggestions = [
            gr.Button(visible=False, size="sm", min_width=260, elem_classes="suggestion")
            for _ in range(handlers.SUGGESTIONS)
        ]
    message = gr.Textbox(
        placeholder=NOT_READY, interactive=False, show_label=False, label="Message", submit_btn=True, elem_id="message"
    )
    return Chatting(before, after, message, note, suggestions)


def _note(text: str) -> str:
    return f'<p class="note" role="status">{escape(text)}</p>'


def _wire(page: gr.Blocks, choosing: Choosing, setting: Setting, watching: Watching, chatting: Chatting) -> None:
    source = gr.State("")
    run = gr.Textbox(visible="hidden", elem_id="run")  # not a State: the address needs it in the browser
    drawn = gr.State("")
    conversation = gr.State(Conversation())
    timer = gr.Timer(1.0, active=False)
    private: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None}

    read = [source, choosing.reading]
    # What was chosen before is forgotten first: a file that cannot be read must not leave the old one to be trained on.
    forget = choosing.upload.upload(_read_nothing, None, [*read, choosing.demo], show_progress="hidden", **private)
    forget.then(_read_upload, choosing.upload, read, show_progress="hidden", **private)
    choosing.upload.clear(_read_nothing, None, [*read, choosing.demo], show_progress="hidden", **private)
    choosing.demo.input(_read_demo, choosing.demo, [*read, choosing.upload], show_progress="hidden", **private)
    model = setting.fields[0]
    model.input(handlers.safe_settings, model, setting.fields, show_progress="hidden", **private)

    shown = [drawn, timer, watching.panel, watching.details, *watching.curves, watching.samples, watching.log]
    shown += [setting.train, setting.stop, chatting.message, chatting.note, *chatting.suggestions]
    watch: dict[str, Any] = {
        "fn": _watch,
        "inputs": [run, drawn],
        "outputs": shown,
        "show_progress": "hidden",
        **private,
    }
    chat = [conversation, chatting.before, chatting.after]
    page.load(_arrive, None, [run, *read, choosing.demo], show_progress="hidden", **private).then(**watch)
    timer.tick(**watch)
    started = setting.train.click(
        _start,
        [source, *setting.fields],
        [run, *chat],
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=1,
    )
    started.success(None, run, None, js=REMEMBER_RUN, **private).then(**watch)
    setting.stop.click(_stop, run, None, **private).then(**watch)

    ask = _asking(Stage())
    answered = [*chat, chatting.message, chatting.note]
    # One at a time: the two sides are the same model, with its adapter switched off and on.
    device: dict[str, Any] = {
        "api_visibility": "private",
        "concurrency_id": "device",
        "concurrency_limit": 1,
        "show_progress": "hidden",
    }
    for trigger, text in (
        (chatting.message.submit, chatting.message),
        *((button.click, button) for button in chatting.suggestions),
    ):
        trigger(ask, [run, text, conversation], answered, **device)
    for side in (chatting.before, chatting.after):
        side.clear(_forget, None, chat, **private)


@_told
def _read_upload(path: str) -> tuple[Any, ...]:
    return _reading(Path(path))


@_told
def _read_demo(name: str) -> tuple[Any, ...]:
    return *_reading(handlers.demo_file(name)), None


def _reading(path: Path) -> tuple[Any, ...]:
    preview = handlers.preview(path)
    return str(path), markup.reading(preview)


def _read_nothing() -> tuple[Any, ...]:
    return "", "", None


@_told
def _arrive(request: gr.Request) -> tuple[Any, ...]:
    """Find the run that the page's address names, or the newest, and show the first demo file."""
    name = next(iter(handlers.demo_files().values()))
    return handlers.find_run(request.query_params.get("run")), *_reading(handlers.demo_file(name)), name


@_told
def _start(source: str, *settings: Any) -> tuple[Any, ...]:
    if not source:
        raise gr.Error("Choose a file first: yours, or a demo file.", print_exception=False)
    named = dict(zip((setting.name for setting in fields(Recipe)), settings, strict=True))
    return handlers.start_training(Path(source), named), *_forget()


def _forget() -> tuple[Any, ...]:
    return Conversation(), [], []


@_told
def _stop(run: str) -> None:
    handlers.stop_training(run)


def _watch(run: str, drawn: str) -> list[Any]:
    """Show how the run goes. *drawn* says what the page shows already; what has not changed is left alone."""
    progress = handlers.progress(run)
    if progress is None:
        return [drawn, gr.Timer(active=False), markup.NO_RUN, *[gr.skip()] * (len(CURVES) + 7 + handlers.SUGGESTIONS)]
    now = f"{run} {progress.step} {progress.status}"
    return [
        now,
        gr.Timer(active=not progress.ended),
        markup.panel(progress),
        gr.Column(visible=True),
        *(_curves(progress) if now != drawn else [gr.skip()] * len(CURVES)),
        markup.samples(progress) if now != drawn else gr.skip(),
        progress.log,
        gr.Button(interactive=progress.ended),
        gr.Button(visible=not progress.ended),
        *(_opened(progress) if now != drawn else [gr.skip()] * (2 + handlers.SUGGESTIONS)),
    ]


def _curves(progress: Progress) -> list[gr.LinePlot]:
    steps = pd.DataFrame(list(progress.curve), columns=["step", *CURVES])
    x_lim: list[float | None] = [0, max(progress.steps, 1)]
    return [
        gr.LinePlot(steps, x_lim=x_lim, y_lim=[0, 1] if name == "reward_accuracy" else [None, None]) for name in CURVES
    ]


def _opened(progress: Progress) -> list[Any]:
    """The chat's box, its note and its suggestions, once there is something to chat with."""
    prompts = handlers.suggestions(progress.run)
    prompts += [""] * (handlers.SUGGESTIONS - len(prompts))
    says = READY if progress.finished else NOT_READY
    return [
        gr.Textbox(interactive=progress.finished, placeholder=says),
        _note("Try a prompt that was not trained on:" if prompts[0] else ""),
        *(gr.Button(prompt, visible=bool(prompt)) for prompt in prompts),
    ]


def _asking(stage: Stage) -> Callable[[str, str, Conversation], Iterator[tuple[Any, ...]]]:
    """Make the handler that answers on both sides with the models on *stage*."""

    def ask(run: str, text: str, conversation: Conversation) -> Iterator[tuple[Any, ...]]:
        if not text.strip():
            return
        asked = conversation.asking(text.strip())
        wait = "Both sides are answering …" if stage.has(run) else "Loading both models, once for this run …"
        yield gr.skip(), *_shown(asked), "", _note(wait)
        try:
            answered = stage.answer(run, asked)
        except DPOHubError as error:
            raise _sentence(error) from error
        yield answered, *_shown(answered), gr.skip(), _note("")

    return ask


def _shown(conversation: Conversation) -> tuple[list[handlers.Message], ...]:
    """Both chats for the page. The chat component lets some markup through, so there must be none."""
    return tuple(
        [{"role": message["role"], "content": escape(message["content"], quote=False)} for message in chat]
        for chat in (conversation.before, conversation.after)
    )
