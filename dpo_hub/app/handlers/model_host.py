"""The models for chat, votes and the lens; they, and torch, are loaded on first use."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ...errors import RunError
from ...preferences.pairs import Messages
from ...runs.queue import require_free_device, run_on_device
from ...runs.run import Run
from ..visitors import Visitor

if TYPE_CHECKING:
    from ...comparison.duet import Duet, Models
    from ...comparison.lens import Lens, Reading

TURNS = 4
"""Turns of a chat that the models see; older ones are only shown on the page."""
EVERY = 0.1
"""Seconds between two updates of the replies; the page could not draw faster."""

Message = dict[str, str]
Chat = tuple[Message, ...]


@dataclass(frozen=True)
class Conversation:
    """Chats with the same questions, each with its own answers: before, after, and further runs.

    `of` is the name of its visitor, because the page keeps it under a number that the browser makes up.
    """

    chats: tuple[Chat, ...] = ((), ())
    of: str = ""

    def for_visitor(self, visitor: Visitor) -> Conversation:
        """This conversation if it is the visitor's, else an empty one."""
        return self if self.of == visitor.name else Conversation(of=visitor.name)

    def kept(self, run_id: str) -> dict[str, Any]:
        """What the visitor's browser keeps of it."""
        return {"run": run_id, "of": self.of, "chats": self.chats}

    @classmethod
    def from_kept(cls, kept: object, run_id: str, visitor: Visitor) -> Conversation | None:
        """The conversation about this run that the browser kept, or None; the browser may send anything."""
        try:
            if not isinstance(kept, dict) or (kept["run"], kept["of"]) != (run_id, visitor.name):
                return None
            chats = tuple(tuple(_message(said) for said in chat) for chat in kept["chats"])
        except (KeyError, TypeError):
            return None
        return cls(chats, visitor.name)

    def asking(self, text: str, sides: int = 2) -> Conversation:
        """Ask the question on all *sides*; a new side does not know the earlier turns."""
        question = {"role": "user", "content": text}
        # A question without a reply is dropped, because most chat templates refuse two in a row.
        said = tuple(chat[:-1] if chat and chat[-1]["role"] == "user" else chat for chat in self.chats)
        chats = (said + ((),) * sides)[:sides]
        return replace(self, chats=tuple((*chat, question) for chat in chats))

    def answered(self, replies: Sequence[str]) -> Conversation:
        both = zip(self.chats, replies, strict=True)
        return replace(self, chats=tuple((*chat, {"role": "assistant", "content": reply}) for chat, reply in both))


def _message(said: Any) -> Message:
    return {"role": "assistant" if said["role"] == "assistant" else "user", "content": str(said["content"])}


class ModelHost:
    """Holds the models that were used last."""

    def __init__(self, open_duet: Callable[..., Duet] | None = None) -> None:
        self._open_duet = open_duet or _open_duet
        self._runs: tuple[str, ...] = ()

    def has(self, *run_ids: str) -> bool:
        """Whether these runs were used last, so that their models are in memory."""
        return self._runs == run_ids

    def ready(self, visitor: Visitor, *run_ids: str) -> Duet:
        """Load the models of these runs, unless they are in memory.

        Raises:
            RunError: there is no such run, it has not finished, or another run is training on the GPU.
            ModelError: the base model cannot be loaded.
        """
        duet = self._open_duet(*(_finished(visitor, run_id) for run_id in run_ids))
        self._runs = run_ids
        return duet

    def answer(
        self, visitor: Visitor, run_ids: Sequence[str], conversation: Conversation, *, system: str = ""
    ) -> Iterator[Conversation]:
        """Answer the last question of *conversation* on all sides, each from its own chat, yielding the replies so far.

        Raises: as `ready`.
        """
        duet, replies, shown = self.ready(visitor, *run_ids), [""] * (len(run_ids) + 1), 0.0
        for more in duet.stream([_messages_of(chat, system) for chat in conversation.chats]):
            replies = [reply + new for reply, new in zip(replies, more, strict=True)]
            if time.monotonic() - shown > EVERY:
                shown = time.monotonic()
                yield conversation.answered(replies)
        yield conversation.answered(replies)

    def read(self, visitor: Visitor, run_id: str, prompt: str, replies: Sequence[str]) -> list[Reading]:
        """Read the implicit reward of each of *replies* to *prompt*, token by token.

        Raises: as `ready`; and ModelError where prompt or replies are too long.
        """
        run = _finished(visitor, run_id)
        _make_way()
        return _lens(run).rewards(prompt, list(replies))


def training_notice() -> str:
    """A sentence if a run is training on this machine, else an empty string."""
    return "A run trains on this machine: it and these replies slow each other down." if run_on_device() else ""


def _finished(visitor: Visitor, run_id: str) -> Run:
    run = visitor.run(run_id)
    if run is None:
        raise RunError("There is no run to talk to. Train one first, or open one from the list of runs.")
    return run.require_finished()


def _open_duet(*runs: Run) -> Duet:
    _make_way()
    return _models().duet(*runs)


@lru_cache(maxsize=1)
def _lens(run: Run) -> Lens:
    from ...comparison.lens import Lens

    return Lens.open(run)


def _make_way() -> None:
    from ...training.policy import device, quiet

    quiet()
    require_free_device(device().type)


@lru_cache(maxsize=1)
def _models() -> Models:
    from ...comparison.duet import Models

    return Models()


def _messages_of(chat: Chat, system: str) -> Messages:
    recent = list(chat[-(2 * TURNS - 1) :])
    return [{"role": "system", "content": system}, *recent] if system.strip() else recent


MODEL_HOST = ModelHost()
"""The one of this process: all visitors share its device, and so its models."""
