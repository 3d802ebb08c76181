"""What the page does, tried without Gradio."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.app import handlers, markup
from dpo_hub.app.handlers import Conversation, Stage
from dpo_hub.errors import PreferencesError, RunError
from dpo_hub.preferences.pairs import Messages
from dpo_hub.state import State

from ..conftest import WriteCsv


@pytest.fixture
def run(few_pairs: Path) -> Run:
    """A queued run."""
    return Run.create(read_preferences(few_pairs), Recipe.for_model())


def _finish(run: Run) -> Run:
    """Leave in the folder what a worker leaves that has finished."""
    _log_steps(run, 2)
    run.write("evaluation.json", '{"reward_accuracy": 0.75}')
    run.write("samples.jsonl", '{"prompt": "<i>p</i>", "chosen": "c", "before": "b", "after": "a"}\n')
    run.set_state(State("finished"))
    return run


def _log_steps(run: Run, count: int) -> None:
    for step in range(1, count + 1):
        run.append_metrics({"step": step, "loss": 0.7 - step / 10, "margin": step / 10, "reward_accuracy": 0.5})


def test_every_demo_file_gives_a_preview() -> None:
    """Each title on the page leads to a file that reads as pairs."""
    for name in handlers.demo_files().values():
        preview = handlers.preview(handlers.demo_file(name))
        assert "500 pairs, read as: one pair a row; prompt, chosen, rejected. Every row was used." in preview.sentence
        assert len(preview.rows) == handlers.PREVIEW_ROWS


def test_a_preview_counts_what_was_left_out(write_csv: WriteCsv) -> None:
    """The sentence says how many rows gave no pair, which, and why."""
    path = write_csv([("prompt", "chosen", "rejected"), ("a", "b", "c"), ("a", "", "c"), ("a", "b", "b")])
    sentence = handlers.preview(path).sentence
    assert "2 rows left out (no chosen: row 3; chosen and rejected the same: row 4)" in sentence


def test_an_error_names_the_file_without_its_folder(write_csv: WriteCsv) -> None:
    """Where an upload lies on the server is not told."""
    path = write_csv([("prompt", "chosen", "rejected")])
    with pytest.raises(PreferencesError, match=r"^pairs\.csv: It has no row") as caught:
        handlers.preview(path)
    assert str(path.parent) not in str(caught.value)


def test_only_ids_of_runs_find_a_run(run: Run) -> None:
    """A folder, a beginning of an id or a path out of the runs finds none; the newest comes in their place."""
    for name in (str(run.path), run.id[:5], "last", f"../runs/{run.id}", ""):
        assert handlers.known_run(name) is None
        assert handlers.progress(name) is None
        assert handlers.find_run(name) == run.id
    assert handlers.find_run(run.id) == run.id


def test_without_runs_there_is_none_to_find() -> None:
    """A first visit finds nothing, and that is no error."""
    assert handlers.find_run("any") == ""


def test_progress_tells_step_and_time_left(run: Run) -> None:
    """A running run says how far it is, and how long the rest takes at the pace so far."""
    run.claim(steps=10)
    _log_steps(run, 2)
    began = run.state.updated
    os.utime(run.path / "metrics.jsonl", (began + 60, began + 60))
    progress = handlers.progress(run.id)
    assert progress is not None
    assert (progress.step, progress.steps, progress.ended) == (2, 10, False)
    assert progress.sentence == "Training, about 4 min left."


def test_progress_of_a_finished_run_has_samples_and_suggestions(run: Run) -> None:
    """At the end there are the held-out reward accuracy, the sample replies, and prompts to try."""
    progress = handlers.progress(_finish(run).id)
    assert progress is not None
    assert progress.finished
    assert "75%" in progress.sentence
    assert "&lt;i&gt;p&lt;/i&gt;" in markup.samples(progress)
    assert len(handlers.suggestions(run.id)) == handlers.SUGGESTIONS


def test_a_failed_run_says_why_and_no_markup_gets_through(run: Run) -> None:
    """The reason stands in the sentence, escaped on the page."""
    run.set_state(State("failed", "No room for <b>it</b>."))
    progress = handlers.progress(run.id)
    assert progress is not None
    assert progress.sentence == "Failed. No room for <b>it</b>."
    assert "&lt;b&gt;it&lt;/b&gt;" in markup.panel(progress)


@dataclass
class FakeDuet:
    """Answers each side with how much it was told, in two steps, and keeps what it was told."""

    told: list[Messages] = field(default_factory=list)

    def stream(self, chats: Sequence[Messages]) -> Iterator[list[str]]:
        self.told += chats
        yield ["before", "after"]
        yield [f" {len(chat)}" for chat in chats]


def test_each_side_goes_on_from_its_own_replies(run: Run) -> None:
    """The next question follows each side's own first answer."""
    _finish(run)
    duet = FakeDuet()
    stage = Stage(open_duet=lambda _run: duet)
    assert not stage.has(run.id)
    first = stage.answer(run.id, Conversation().asking("Hello"))
    assert stage.has(run.id)
    second = stage.answer(run.id, first.asking("And?"))
    assert [len(prompt) for prompt in duet.told] == [1, 1, 3, 3]
    assert [prompt[1]["content"] for prompt in duet.told[2:]] == ["before 1", "after 1"]
    assert [message["content"] for message in second.after] == ["Hello", "after 1", "And?", "after 3"]


def test_no_chat_before_the_end(run: Run) -> None:
    """A run that has not finished cannot be talked to, and says so."""
    with pytest.raises(RunError, match="queued, not finished"):
        Stage().answer(run.id, Conversation().asking("Hello"))


def test_the_page_is_built_without_torch() -> None:
    """The app's process stays light until somebody chats."""
    pytest.importorskip("gradio")
    code = "import sys; from dpo_hub.app.page import build; build(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
