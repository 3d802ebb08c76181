"""Publish a run: the model card that goes with it, and the upload to the Hub, reported stage by stage."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue

from ...errors import DPOHubError, PublishError, RunError
from ...hub.account import Token, client, require_name
from ...hub.bundle import OF_OURS
from ...hub.card import ADAPTER_LINE, SPLIT_LINE, adapt_card
from ...hub.ollama import create_command, name_for
from ...hub.publish import Published, Tell
from ...hub.publish import publish as publish_on_hub
from ...runs.base_model import OURS
from ...runs.run import Run
from ..visitors import Visitor, on_space

BEGIN, END = "<!-- description: begin -->", "<!-- description: end -->"
"""The lines around the description in a run's README.md."""
LICENCE_TO_COME = "what the base model's card says when this is published"
LONGEST = 8000
"""The most characters of a description."""

_MADE = re.compile(r"-\d{8}-\d{6}-[0-9a-f]{4}$")
_FRONT = re.compile(r"\A\s*---\n(.*?)\n---\n", re.DOTALL)
_TITLE = re.compile(r"^# .*\n", re.MULTILINE)
_DESCRIPTION = re.compile(rf"\n{re.escape(BEGIN)}\n(.*?)\n{re.escape(END)}\n", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_PICTURE = re.compile(r"^!\[([^\]\n]*)\]\([^)\n]*\)$", re.MULTILINE)
_DIAGRAM = re.compile(r"^([ \t>]*[`~]{3,}[ \t]*)mermaid\b", re.MULTILINE | re.IGNORECASE)
_JOINER = "\N{WORD JOINER}"
"""An invisible character that separates what would otherwise be read together."""


@dataclass(frozen=True)
class PublishOptions:
    """What is to be published, and where."""

    repo: str
    private: bool = True
    with_data: bool = False
    merged: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Card:
    """A model card for the page: its metadata, and its text without anything that a browser would fetch or run."""

    metadata: str
    text: str


@dataclass(frozen=True)
class Publication:
    """The progress of publishing: the stages so far, the last of them in progress until it has ended."""

    stages: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    trouble: str = ""

    @property
    def ended(self) -> bool:
        return bool(self.published or self.trouble)


def publishable(visitor: Visitor, run_id: str) -> Run | None:
    """The visitor's run with this id, if it has finished and its adapter is here."""
    run = visitor.run(run_id)
    return run if run and run.state.status == "finished" and run.adapter.is_dir() else None


def stem(run: Run) -> str:
    """The run's name without the time of its creation."""
    return _MADE.sub("", run.id)


def suggested_repo(visitor: Visitor, run: Run) -> str:
    """The suggested repository, if the visitor's name is known without asking the Hub, else empty."""
    return f"{visitor.name}/{stem(run)}" if visitor.name else ""


def description(run: Run) -> str:
    """The description that was written into the run's card."""
    found = _DESCRIPTION.search(run.card)
    return found[1].strip() if found else ""


def describe(visitor: Visitor, run_id: str, text: str) -> None:
    """Save *text* in the run's card, below its title, in place of the earlier description.

    Raises:
        RunError: there is no such finished run.
    """
    run = _require(visitor, run_id)
    if text.strip() != description(run):
        run.write("README.md", described(run.card, text))


def described(card: str, text: str) -> str:
    """The *card* with *text* below its title, without any earlier description."""
    bare = _DESCRIPTION.sub("", card)
    said = _own_lines(text[:LONGEST].replace(BEGIN, "").replace(END, "").strip())
    if not said:
        return bare
    front = _FRONT.match(bare)
    title = _TITLE.search(bare, front.end() if front else 0)
    at = title.end() if title else front.end() if front else 0
    return f"{bare[:at]}\n{BEGIN}\n{said}\n{END}\n{bare[at:]}"


def _own_lines(text: str) -> str:
    """*text* without any line that publishing would mistake for one of the card's own and replace."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(f"{line} " if line in (ADAPTER_LINE, SPLIT_LINE) else line for line in lines)


def preview(run: Run, wanted: PublishOptions, text: str) -> Card:
    """The card as it will be on the Hub, with *text* as its description.

    Raises:
        PublishError: the card's metadata cannot be read.
    """
    inherited = OF_OURS.license if run.recipe.model in OURS else {"license": LICENCE_TO_COME}
    repo = wanted.repo.strip() or f"your-name/{stem(run)}"
    data = [f"{repo}-preferences"] if wanted.with_data else []
    whole = adapt_card(described(run.card, text), repo_id=repo, datasets=data, **inherited)
    front = _FRONT.match(whole)
    return Card(front[1] if front else "", sanitize_markdown(whole[front.end() :] if front else whole))


def sanitize_markdown(markdown: str) -> str:
    """*markdown* without pictures, diagrams or HTML, so that displaying it sends no requests."""
    seen = _PICTURE.sub(lambda found: f"*(A picture: {found[1]}.)*", _COMMENT.sub("", markdown))
    seen = _DIAGRAM.sub(r"\1text", seen)
    return re.sub(r"<(?=[A-Za-z/!?])", f"<{_JOINER}", seen).replace("![", f"!{_JOINER}[")


def commands(run: Run) -> str:
    """The commands that merge the run's model, and add it to Ollama."""
    out = Path(f"{stem(run)}-merged")
    name = name_for(out)
    merge = shlex.join(["dpo-hub", "merge", run.id, str(out)])
    ollama = f"{create_command(out, name)}\n{shlex.join(['ollama', 'run', name])}"
    return f"# --gguf makes a file for llama.cpp too\n{merge}\n{ollama}"


def publish(visitor: Visitor, run_id: str, wanted: PublishOptions, *, token: str = "", tell: Tell) -> list[Published]:
    """Publish the run as *wanted*: on a Space with the visitor's own token, elsewhere with *token* or their login.

    Raises:
        RunError: there is no such finished run.
        PublishError: see `hub.publish.publish`.
        ModelError: likewise.
    """
    run = _require(visitor, run_id)
    if not wanted.repo.strip():
        raise PublishError(f"Say where it should go, as owner/name: your name on the Hub, and {stem(run)}, say.")
    require_name(wanted.repo.strip())
    return publish_on_hub(
        run,
        wanted.repo.strip(),
        api=client(_token(visitor, token)),
        private=wanted.private,
        with_data=wanted.with_data,
        merged=wanted.merged,
        overwrite=wanted.overwrite,
        tell=tell,
    )


def publish_with_progress(
    visitor: Visitor, run_id: str, wanted: PublishOptions, *, token: str = ""
) -> Iterator[Publication]:
    """Publish as `publish` does, and yield the progress; it continues to the end even if nobody is listening."""
    said: SimpleQueue[str | None] = SimpleQueue()
    pool = ThreadPoolExecutor(1)
    work = pool.submit(publish, visitor, run_id, wanted, token=token, tell=said.put)
    work.add_done_callback(lambda _: said.put(None))
    pool.shutdown(wait=False)
    goes = Publication()
    for stage in iter(said.get, None):
        goes = replace(goes, stages=(*goes.stages, stage))
        yield goes
    yield _ended(goes, work)


def _ended(goes: Publication, work: Future[list[Published]]) -> Publication:
    try:
        return replace(goes, published=tuple(work.result()))
    except DPOHubError as error:
        return replace(goes, trouble=str(error))


def _token(visitor: Visitor, typed: str) -> Token:
    """The token to use; on a Space always the visitor's, never the machine's and never one that was typed."""
    if on_space():
        return visitor.token or False
    return typed.strip() or None


def _require(visitor: Visitor, run_id: str) -> Run:
    run = visitor.run(run_id)
    if run is None:
        raise RunError("There is no run to publish any more. Train one first.")
    return run.require_finished()
