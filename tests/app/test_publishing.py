"""Publishing from the app, against a Hub on this machine."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from dpo_hub import Run
from dpo_hub.app.handlers import publishing
from dpo_hub.app.handlers.publishing import Publication, PublishOptions
from dpo_hub.app.markup import publish as markup
from dpo_hub.app.visitors import Visitor
from dpo_hub.errors import RunError
from dpo_hub.hub import proof
from dpo_hub.hub.account import client
from dpo_hub.hub.card import ADAPTER_LINE, SPLIT_LINE
from dpo_hub.hub.proof import Proof
from dpo_hub.hub.publish import Published
from dpo_hub.runs.state import State

from ..conftest import until
from ..hub.conftest import ADA, BOB, Tiny, hub, tiny  # noqa: F401  # fixtures
from ..hub.loopback import Hub

TONE = PublishOptions("ada/tone")
HOSTILE = '<img src="https://evil.example/a.png" onerror="alert(1)">'


@pytest.fixture
def run(tiny: Tiny, home: Path) -> Run:  # noqa: F811
    """The finished run, on the shelf of this test."""
    return Run(Path(shutil.copytree(tiny.run.path, home / "runs" / tiny.run.id)))


@pytest.fixture
def visitor(run: Run, home: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Visitor:  # noqa: F811
    """Who has that run, beside a Hub; the adapters are not compared, which takes seconds."""
    monkeypatch.setattr(publishing, "client", partial(client, endpoint=hub.endpoint))
    monkeypatch.setattr(proof, "has_torch", lambda: False)
    return Visitor("", home)


def _publish(visitor: Visitor, run: Run, wanted: PublishOptions = TONE, token: str = ADA) -> Publication:
    return list(publishing.publish_with_progress(visitor, run.id, wanted, token=token))[-1]


def test_each_stage_is_told_and_the_end_is_a_link(visitor: Visitor, run: Run, hub: Hub) -> None:  # noqa: F811
    """What is done is told as it is done, and the last word has the address and what was compared."""
    told = list(publishing.publish_with_progress(visitor, run.id, TONE, token=ADA))
    assert [goes.stages[-1].split()[0] for goes in told[:-1]] == ["Asking", "Sending", "Comparing"]
    assert [goes.ended for goes in told] == [False, False, False, True]
    assert [one.url for one in told[-1].published] == [f"{hub.endpoint}/ada/tone"]
    page = markup.progress(told[-1])
    assert f'<a href="{hub.endpoint}/ada/tone" target="_blank" rel="noopener noreferrer">' in page
    assert "9 files are on the Hub as they are here. Logits were not compared: torch is not installed." in page
    assert hub.repos["ada/tone"].private


def test_pairs_go_with_it_when_asked_for(visitor: Visitor, run: Run, hub: Hub) -> None:  # noqa: F811
    """The box for the pairs makes the dataset beside the model, and both are linked."""
    goes = _publish(visitor, run, replace(TONE, with_data=True))
    assert [one.url.removeprefix(hub.endpoint) for one in goes.published] == [
        "/ada/tone",
        "/datasets/ada/tone-preferences",
    ]


def test_a_refusal_is_a_sentence_and_trying_again_is_right(visitor: Visitor, run: Run, hub: Hub) -> None:  # noqa: F811
    """After a refusal nothing is there; with a better token, the same call publishes."""
    refused = _publish(visitor, run, token=BOB)
    assert "bob is neither ada nor a member of it" in refused.trouble
    assert (refused.published, "ada/tone" in hub.repos) == ((), False)
    assert 'class="failed"' in markup.progress(refused)
    assert _publish(visitor, run).published


@pytest.mark.parametrize("repo", ["", "tone", "ada/--x", HOSTILE])
def test_a_name_that_is_none_is_refused_before_anything_is_asked(
    visitor: Visitor,
    run: Run,
    hub: Hub,  # noqa: F811
    repo: str,
) -> None:
    """The sentence names what is wrong, and no markup in it gets onto the page."""
    refused = _publish(visitor, run, PublishOptions(repo))
    assert refused.trouble
    assert hub.asked == []
    assert "<img" not in markup.progress(refused)


def test_it_goes_on_where_nobody_listens(visitor: Visitor, run: Run, hub: Hub) -> None:  # noqa: F811
    """Whoever closes the page midway finds the repository whole."""
    goes = publishing.publish_with_progress(visitor, run.id, TONE, token=ADA)
    next(goes)
    goes.close()  # type: ignore[attr-defined]
    until(lambda: "ada/tone" in hub.repos and len(hub.repos["ada/tone"].commits) == 2)
    until(lambda: not list(run.path.glob(".*.aside")))  # the end of its thread


def test_nobody_publishes_a_run_of_others(visitor: Visitor, run: Run, home: Path) -> None:
    """A run on another shelf, a path, and the beginning of an id are no runs."""
    bob = replace(visitor, name="bob", shelf=home / "visitors" / "bob")
    assert publishing.publishable(bob, run.id) is None
    for name in (str(run.path), run.id[:6], "last", ""):
        assert "no run to publish" in list(publishing.publish_with_progress(visitor, name, TONE, token=ADA))[-1].trouble
    with pytest.raises(RunError, match="no run to publish"):
        publishing.describe(bob, run.id, "Mine.")


def test_a_run_that_has_not_finished_is_not_offered(visitor: Visitor, run: Run) -> None:
    """The step stays empty, and asking all the same is refused."""
    run.set_state(State("stopped", "Stopped."))
    assert publishing.publishable(visitor, run.id) is None
    assert "is stopped, not finished" in _publish(visitor, run).trouble


def test_the_token_stays_nowhere(visitor: Visitor, run: Run, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Whether it publishes or is refused, no file, no log and nothing that is told has the token."""
    caplog.set_level(logging.DEBUG)
    told = [_publish(visitor, run), _publish(visitor, run, PublishOptions("ada/other"), token=BOB)]
    with pytest.raises(Exception, match="neither ada") as refused:
        publishing.publish(visitor, run.id, TONE, token=BOB, tell=lambda _: None)
    seen = [*map(repr, told), *map(markup.progress, told), repr(refused.value), str(refused.value), caplog.text]
    assert [text for text in seen if ADA in text or BOB in text] == []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert run.path / "README.md" in files
    assert [path for path in files if any(token.encode() in path.read_bytes() for token in (ADA, BOB))] == []


def test_on_a_space_only_the_visitors_own_token_counts(
    visitor: Visitor,
    run: Run,
    hub: Hub,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither the machine's token nor a typed one is used; without a token of their own they are told so."""
    monkeypatch.setenv("SPACE_ID", "ada/app")
    monkeypatch.setenv("HF_TOKEN", ADA)
    nobody = replace(visitor, name="ada", token=None)
    assert "There is no token for the Hub." in _publish(nobody, run, token=ADA).trouble
    assert "bob is neither ada" in _publish(replace(visitor, name="bob", token=BOB), run, token=ADA).trouble
    assert "ada/tone" not in hub.repos
    assert _publish(replace(visitor, name="ada", token=ADA), run, token="").published


def test_the_description_goes_out_with_the_card(visitor: Visitor, run: Run, hub: Hub) -> None:  # noqa: F811
    """What was written below the title is in the published card, and the code there still names the repository."""
    publishing.describe(visitor, run.id, f"For *our shop*.\n\n{ADAPTER_LINE}\n{SPLIT_LINE}")
    _publish(visitor, run, replace(TONE, with_data=True))
    card = hub.repos["ada/tone"].head.files["README.md"].decode()
    assert card.index("# A LoRA adapter") < card.index("For *our shop*.") < card.index("This adapter changes")
    assert f"\n{ADAPTER_LINE} \n{SPLIT_LINE} \n{publishing.END}" in card
    assert '\nadapter = "ada/tone"\ntokenizer = ' in card
    assert "The pairs are published: [ada/tone-preferences]" in card


def test_describing_again_replaces(visitor: Visitor, run: Run) -> None:
    """One description is there at a time; an empty one leaves the card as it was."""
    before = run.card
    for text in ("First.", "Second,\n\nwith more.", "Second,\n\nwith more."):
        publishing.describe(visitor, run.id, text)
    assert publishing.description(run) == "Second,\n\nwith more."
    assert run.card.count(publishing.BEGIN) == 1
    publishing.describe(visitor, run.id, f"{publishing.END} x {publishing.BEGIN}")
    assert publishing.description(run) == "x"
    publishing.describe(visitor, run.id, " ")
    assert run.card == before


def test_the_preview_names_the_repository(visitor: Visitor, run: Run) -> None:
    """It is the card that the Hub will have, in two parts, without the marks of the description."""
    card = publishing.preview(run, replace(TONE, with_data=True), "For *our shop*.")
    assert "library_name: peft" in card.metadata
    assert "- ada/tone-preferences" in card.metadata
    assert 'adapter = "ada/tone"' in card.text
    assert "For *our shop*." in card.text
    assert "---" not in card.text.partition("\n# ")[0]
    assert "<!--" not in card.text


@pytest.mark.parametrize(
    "text",
    [
        HOSTILE,
        "![pixel](https://evil.example/a.png)",
        "![pixel]\n\n[pixel]: https://evil.example/a.png",
        "```\n```\n<iframe src='https://evil.example'></iframe>",
        "<style>@import 'https://evil.example'</style>",
        "<!x><svg/onload=alert(1)>",
        "<!-- <img --> <img src=x>",
        "<<!-- -->img src=x>",
        "![<!-- -->a](x)",
        "!<!-- -->[a](x)",
    ],
)
def test_the_preview_fetches_and_runs_nothing(text: str) -> None:
    """No tag and no picture is left for a browser, inside code or out of it."""
    shown = publishing.sanitize_markdown(text)
    assert "![" not in shown
    assert not any(f"<{letter}" in shown.lower() for letter in "abcdefghijklmnopqrstuvwxyz/!?")


def test_the_preview_draws_no_diagram() -> None:
    """A block that Markdown would hand to another renderer is plain text."""
    assert publishing.sanitize_markdown("```mermaid\ngraph\n```") == "```text\ngraph\n```"


def test_commands_are_for_this_run(run: Run) -> None:
    """They name the run and the folder that the first of them makes."""
    assert publishing.commands(run).splitlines()[1:] == [
        f"dpo-hub merge {run.id} tone-merged",
        "ollama create tone-merged -f tone-merged/Modelfile",
        "ollama run tone-merged",
    ]


def test_a_suggestion_only_where_the_name_is_known(visitor: Visitor, run: Run) -> None:
    """On a Space the visitor's name is known; elsewhere nothing is asked of the Hub for it."""
    assert publishing.suggested_repo(visitor, run) == ""
    assert publishing.suggested_repo(replace(visitor, name="ada"), run) == "ada/tone"


def test_no_markup_gets_through() -> None:
    """Stages, errors, addresses and what was compared are escaped."""
    one = Published(f"https://hub/{HOSTILE}", "c", True, Proof(1, 0, HOSTILE))
    page = markup.progress(Publication((HOSTILE,), (one,), HOSTILE))
    assert "<img" not in page
    assert 'onerror="' not in page
