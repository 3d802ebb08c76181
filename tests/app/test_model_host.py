"""What the models are asked from the page, with models that only count what they were told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.app.handlers import files, voting
from dpo_hub.app.handlers.model_host import Conversation, ModelHost
from dpo_hub.app.markup import compare as markup
from dpo_hub.app.visitors import Visitor
from dpo_hub.comparison.duet import Replies
from dpo_hub.comparison.lens import Reading
from dpo_hub.comparison.votes import votes_of
from dpo_hub.errors import RunError
from dpo_hub.preferences.pairs import Messages
from dpo_hub.runs.state import State


@pytest.fixture
def visitor(home: Path) -> Visitor:
    """Whoever sits before this machine."""
    return Visitor("", home)


@pytest.fixture
def run(few_pairs: Path) -> Run:
    """A finished run, as far as a chat with nobody behind it goes."""
    run = Run.create(read_preferences(few_pairs), Recipe.for_model())
    run.set_state(State("finished"))
    return run


@dataclass
class FakeDuet:
    """Answers each side with how much it was told, in two steps, and keeps what it was told."""

    told: list[Messages] = field(default_factory=list)

    def stream(self, chats: Sequence[Messages]) -> Iterator[list[str]]:
        self.told += chats
        yield [f"side{number}" for number, _ in enumerate(chats)]
        yield [f" {len(chat)}" for chat in chats]

    def replies(self, prompts: Sequence[Messages], *, seed: int) -> list[Replies]:
        return [Replies("<b>no</b>", f"yes, {len(prompt)}") for prompt in prompts]


def _last(answers: Iterator[Conversation]) -> Conversation:
    *_, last = answers
    return last


def test_each_side_goes_on_from_its_own_replies(run: Run, visitor: Visitor) -> None:
    """The next question follows each side's own first answer; a system message comes before all of it."""
    duet = FakeDuet()
    stage = ModelHost(open_duet=lambda _run: duet)
    assert not stage.has(run.id)
    first = _last(stage.answer(visitor, [run.id], Conversation().asking("Hello")))
    assert stage.has(run.id)
    second = _last(stage.answer(visitor, [run.id], first.asking("And?"), system="Be brief."))
    assert [len(prompt) for prompt in duet.told] == [1, 1, 4, 4]
    assert [prompt[2]["content"] for prompt in duet.told[2:]] == ["side0 1", "side1 1"]
    assert duet.told[2][0] == {"role": "system", "content": "Be brief."}
    assert [message["content"] for message in second.chats[1]] == ["Hello", "side1 1", "And?", "side1 4"]


def test_a_third_run_joins_with_what_it_was_asked(run: Run, visitor: Visitor, few_pairs: Path) -> None:
    """It answers beside the two, and has missed what was said before."""
    other = Run.create(read_preferences(few_pairs), Recipe.for_model())
    other.set_state(State("finished"))
    stage = ModelHost(open_duet=lambda *_runs: FakeDuet())
    first = _last(stage.answer(visitor, [run.id], Conversation().asking("Hello")))
    asked = first.asking("And?", sides=3)
    assert [len(chat) for chat in asked.chats] == [3, 3, 1]
    assert [chat[-1]["content"] for chat in _last(stage.answer(visitor, [run.id, other.id], asked)).chats] == [
        "side0 3",
        "side1 3",
        "side2 1",
    ]


def test_a_question_without_a_reply_is_not_asked_again() -> None:
    """After an error or a stop the next question does not follow on another one."""
    asked = Conversation().asking("Hello").asking("And?")
    assert [[message["content"] for message in chat] for chat in asked.chats] == [["And?"], ["And?"]]


def test_a_conversation_is_shown_to_whose_it_is_only(tmp_path: Path) -> None:
    """The page keeps it by a number that a browser makes up, so another's is as if there were none."""
    ada, bob = Visitor("ada", tmp_path), Visitor("bob", tmp_path)
    hers = Conversation().for_visitor(ada).asking("secret")
    assert hers.for_visitor(ada) == hers
    assert hers.for_visitor(bob).chats == ((), ())


def test_a_browser_keeps_a_conversation_and_may_send_anything(visitor: Visitor, tmp_path: Path) -> None:
    """It comes back for the same run and visitor; what is none of ours is no conversation, and no error."""
    said = Conversation().asking("Hello").answered(["no", "<b>"])
    kept = json.loads(json.dumps(said.kept("run-1")))
    assert Conversation.from_kept(kept, "run-1", visitor) == said
    assert Conversation.from_kept(kept, "run-2", visitor) is None
    assert Conversation.from_kept(kept, "run-1", Visitor("bob", tmp_path)) is None
    for nonsense in (
        None,
        [],
        "x",
        {},
        kept | {"chats": 7},
        kept | {"chats": [[1]]},
        kept | {"chats": [[{"role": 1}]]},
    ):
        assert Conversation.from_kept(nonsense, "run-1", visitor) is None
    forged = kept | {"chats": [[{"role": "system", "content": 1}], []]}
    assert Conversation.from_kept(forged, "run-1", visitor) == Conversation((({"role": "user", "content": "1"},), ()))


def test_no_chat_before_the_end_nor_with_anothers_run(run: Run, visitor: Visitor, tmp_path: Path) -> None:
    """It says what is in the way."""
    run.set_state(State("queued"))
    with pytest.raises(RunError, match="queued, not finished"):
        _last(ModelHost().answer(visitor, [run.id], Conversation().asking("Hello")))
    with pytest.raises(RunError, match="no run to talk to"):
        _last(ModelHost().answer(Visitor("bob", tmp_path / "bob"), [run.id], Conversation().asking("Hello")))


def test_a_vote_is_blind_and_becomes_a_preference(run: Run, visitor: Visitor) -> None:
    """The ballot's repr does not tell which side is which; the vote lies on the disk, and gives a file to train on."""
    stage = ModelHost(open_duet=lambda _run: FakeDuet())
    with pytest.raises(RunError, match="No vote gives a pair yet"):
        voting.as_file(visitor, run.id)
    ballot = voting.next_ballot(stage, visitor, run.id)
    assert "before" not in repr(ballot)
    voting.vote(visitor, run.id, ballot, "tie", "A better one")
    assert [vote.edit for vote in votes_of(run)] == ["A better one"]
    assert "1 blind vote " in voting.result(visitor, run.id)[0]
    made = files.read(files.find(visitor.shelf, voting.as_file(visitor, run.id)))
    assert made.pairs[0].chosen[0]["content"] == "A better one"
    typed = voting.next_ballot(stage, visitor, run.id, asked=" Why? ")
    assert typed.prompt == [{"role": "user", "content": "Why?"}]


def test_tokens_are_coloured_by_what_they_are_worth() -> None:
    """The best reply comes first; liked and avoided differ by more than a colour; nothing in them is markup."""
    shown = markup.readings([Reading(("<b>", "no"), (-1.0, -0.5)), Reading(("yes",), (2.0,))])
    assert shown.index("Reply 2: reward +2.00") < shown.index("Reply 1: reward -1.50")
    assert '<span class="token against" style="--worth: 30%" title="-1.000">&lt;b&gt;</span>' in shown


def test_the_page_is_built_without_torch() -> None:
    """The app's process stays light until somebody chats."""
    pytest.importorskip("gradio")
    code = "import sys; from dpo_hub.app.page import build; build(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
