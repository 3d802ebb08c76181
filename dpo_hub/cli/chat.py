"""The command `chat`: a run's model before and after training, or the models of several runs, side by side."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RunError
from ..runs.queue import require_free_device
from ..runs.run import Run

if TYPE_CHECKING:
    from rich.table import Table

    from ..comparison.duet import Duet

cli = typer.Typer()


@cli.command()
def chat(  # noqa: PLR0913  # one parameter per option
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN… [PROMPT]", help="Runs with the same base model, and a prompt: the word that is not a run."
        ),
    ],
    *,
    ask: Annotated[
        str | None,
        typer.Option("--ask", "-p", metavar="PROMPT", help="The prompt, in case it could be taken for a run's name."),
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="A system message.")] = None,
    temperature: Annotated[
        float, typer.Option(help="Sampling temperature; 0 always takes the most likely token.", min=0)
    ] = 0.7,
    seed: Annotated[int, typer.Option(help="Seed of the replies, the same on all sides.", min=0, max=2**31 - 1)] = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest reply, in tokens.", min=1)] = 256,
    beside: Annotated[bool, typer.Option("--beside", help="Chat even while a run trains on the same GPU.")] = False,
) -> None:
    """Ask the model before and after training, side by side. Without a prompt you can chat.

    Ctrl-C ends a reply and an empty line the chat. Another program can pipe prompts in, one a line.
    """
    runs, prompt = _split_runs_and_prompt(words, ask)
    for run in runs:
        run.require_finished()
    from ..comparison.duet import Duet
    from ..training.policy import device, quiet

    quiet()
    require_free_device(device().type, beside=beside)
    sides = ["before", "after"] if len(runs) == 1 else ["before", *(run.id for run in runs)]
    sampling = {"temperature": temperature, "seed": seed, "max_new_tokens": max_new_tokens}
    session = ChatSession(Duet.open(*runs), sides, sampling, system)
    if prompt is not None:
        _show(session, prompt)
    elif sys.stdin.isatty():
        for question in _read_questions():
            _show(session, question)
    else:
        for question in filter(None, map(str.strip, sys.stdin)):
            _print(session, question)


def _split_runs_and_prompt(words: list[str], ask: str | None) -> tuple[list[Run], str | None]:
    """Return the runs in *words*, and the prompt: *ask*, or the last word if it is not a run."""
    *names, last = words
    if names and ask is None:
        try:
            Run.open(last)
        except (RunError, OSError, ValueError):  # some systems reject a long prompt as a path
            return [Run.open(name) for name in names], last
    return [Run.open(name) for name in words], ask


@dataclass
class ChatSession:
    """The chats of all sides, each with its own replies."""

    duet: Duet
    sides: list[str]
    sampling: dict[str, Any]
    system: str | None = None
    chats: list[list[dict[str, str]]] = field(init=False)

    def __post_init__(self) -> None:
        told = [{"role": "system", "content": self.system}] if self.system else []
        self.chats = [list(told) for _ in self.sides]

    @property
    def replies(self) -> list[str]:
        """The last reply of each side."""
        return [chat[-1]["content"] for chat in self.chats]

    def ask(self, question: str) -> Generator[list[str]]:
        """Yield the replies as they grow. The chats keep what was generated up to the end or until it is closed."""
        for chat in self.chats:
            chat.append({"role": "user", "content": question})
        replies = [""] * len(self.chats)
        try:
            for new in self.duet.stream(self.chats, **self.sampling):
                replies = [reply + more for reply, more in zip(replies, new, strict=True)]
                yield replies
        finally:
            for chat, reply in zip(self.chats, replies, strict=True):
                chat.append({"role": "assistant", "content": reply})


def _read_questions() -> Iterator[str]:
    """Yield what the user types, until an empty line, Ctrl-D or Ctrl-C."""
    with suppress(ImportError):
        import readline  # noqa: F401  # the arrow keys edit the line
    with suppress(EOFError, KeyboardInterrupt):
        while question := input("> ").strip():
            yield question


def _show(session: ChatSession, question: str) -> None:
    """Show the replies in columns as they come, until they end or the user presses Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    live = Live(console=console, transient=True, auto_refresh=False)
    with suppress(KeyboardInterrupt), closing(session.ask(question)) as steps, live:
        for replies in steps:
            live.update(_columns(session.sides, replies), refresh=console.is_terminal)
    console.print(_columns(session.sides, session.replies))


def _columns(sides: list[str], replies: list[str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True)
    for side in sides:
        table.add_column(Text(side), ratio=1)
    table.add_row(*map(Text, replies))
    return table


def _print(session: ChatSession, question: str) -> None:
    """Print the replies as lines, each prefixed with its side's name."""
    for _ in session.ask(question):
        pass
    for side, reply in zip(session.sides, session.replies, strict=True):
        print(f"{side}: {reply}")
    print(flush=True)
