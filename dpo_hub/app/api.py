"""The app's API for programs: five endpoints, each acting for the visitor whose session calls it. See docs/api.md."""

# No `from __future__ import annotations`: Gradio reads the endpoints' types from the annotations themselves.

from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import PreferencesError, PublishError, RecipeError, RunError, needing_extra
from ..preferences import Preferences
from ..recipe import DEMO_MODEL, Recipe
from .handlers import files, publishing, training
from .handlers.model_host import MODEL_HOST, Conversation
from .handlers.publishing import PublishOptions
from .place import DEVICE, show_errors, visitor_of

with needing_extra("app"):
    import gradio as gr
    from gradio.events import api
    from gradio.utils import get_upload_folder

ENDPOINTS = ("check", "train", "status", "compare", "publish")
KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}


def expose() -> None:
    """Add the endpoints to the page that is being built."""
    api(check, api_name="check", concurrency_limit=2)
    api(train, api_name="train")
    api(status, api_name="status", concurrency_limit=None, queue=False)  # gradio_client queues all the same
    api(compare, api_name="compare", concurrency_limit=1, concurrency_id=DEVICE["concurrency_id"])
    api(publish, api_name="publish", concurrency_limit=2, concurrency_id="publish")


def hide_other_handlers(page: gr.Blocks) -> None:
    """Hide the built page's other handlers from the API; Gradio adds some itself, such as the sign-in button's."""
    for handler in page.fns.values():
        if handler.api_name not in ENDPOINTS:
            handler.api_visibility = "private"


@show_errors
def check(file: dict[str, Any] | str, request: gr.Request) -> dict[str, Any]:
    """Read a preference file: an upload, demo:NAME, hub:OWNER/NAME, or the id of an earlier upload."""
    visitor = visitor_of(request)
    name = file if isinstance(file, str) else files.save_upload(visitor.shelf, _uploaded(file))
    return {"id": name, **_report(files.read(files.find(visitor.shelf, name)))}


@show_errors
def train(file: str, settings: dict[str, Any], request: gr.Request) -> str:
    """Start a run on the file with this id, with recipe settings as in recipe.json; return the run's id."""
    if not isinstance(file, str):
        raise PreferencesError("Name the file by the id that check gives.")
    return training.start_training(visitor_of(request), file, _settings(settings))


@show_errors
def status(run: str, request: gr.Request) -> dict[str, Any]:
    """Report a run's status (queued, running, finished, failed or stopped), a sentence, and the last step's figures."""
    stands = training.status(visitor_of(request), run)
    if stands is None:
        raise RunError("There is no such run here.")
    return stands


@show_errors
def compare(run: str, prompt: str, request: gr.Request) -> dict[str, str]:
    """Reply to a prompt with the model before and after training."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise RunError("The prompt is empty. Ask something.")
    *_, answered = MODEL_HOST.answer(visitor_of(request), [run], Conversation().asking(prompt.strip()))
    before, after = (chat[-1]["content"] for chat in answered.chats)
    return {"before": before, "after": after}


@show_errors
def publish(run: str, repo: str, request: gr.Request, private: bool = True, token: str = "") -> str:
    """Publish a finished run to the Hub as owner/name, verify the upload, and return its URL."""
    if not (isinstance(repo, str) and isinstance(private, bool) and isinstance(token, str)):
        raise PublishError("repo and token are texts, and private is true or false.")
    wanted = PublishOptions(repo, private=private)
    done = publishing.publish(visitor_of(request), run, wanted, token=token, tell=lambda _: None)
    return done[0].url


def _uploaded(file: Any) -> Path:
    """The path of an upload. Nothing outside the upload folder is accepted, whatever the request says."""
    named = file.get("path") if isinstance(file, dict) else None
    path = Path(named).resolve() if isinstance(named, str) and "\0" not in named else None
    if path is None or not path.is_relative_to(Path(get_upload_folder()).resolve()) or not path.is_file():
        raise PreferencesError("This is no uploaded file. Upload one (handle_file), or name demo:tone.")
    return path


def _report(preferences: Preferences) -> dict[str, Any]:
    return {"sentence": preferences.sentence(), **preferences.report()}


def _settings(asked: Any) -> dict[str, Any]:
    """The requested settings, each checked to have the type of its recipe field."""
    if not isinstance(asked, dict):
        raise RecipeError("The settings are none. Give an object, as {} or {'epochs': 1}.")
    kinds = {setting.name: str(setting.type) for setting in fields(Recipe)}
    for name, value in asked.items():
        if name not in kinds:
            raise RecipeError(f"There is no setting {name!r}. There are {', '.join(kinds)}.")
        _require_kind(name, value, kinds[name])
    return {"model": DEMO_MODEL, **asked}


def _require_kind(name: str, value: Any, kind: str) -> None:
    if not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise RecipeError(f"{name} is {value!r}, which is no {kind}.")
