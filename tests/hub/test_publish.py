"""Publishing against a Hub on this machine, with the real client in a process of its own."""

from __future__ import annotations

import json
import re
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import HfApi, RepoCard

from dpo_hub import Run
from dpo_hub.errors import PublishError, RunError
from dpo_hub.hub import calls
from dpo_hub.hub.account import client
from dpo_hub.hub.calls import UnreachableError
from dpo_hub.hub.commits import commit_once, get_repository
from dpo_hub.hub.proof import verify_adapter
from dpo_hub.hub.publish import publish
from dpo_hub.preferences.pairs import digest
from dpo_hub.runs.state import State

from .conftest import ADA, ADA_READS, BASE, BOB, Python, Tiny, finish, measured_run
from .loopback import Fault, Hub

MINE = b"---\nlicense: mit\n---\n# Mine"
CLOSE = "torch.allclose(model(ids).logits, expected, atol=1e-5)"
FILES = {
    ".gitattributes",
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "chat_template.jinja",
    "evaluation.json",
    "metrics.jsonl",
    "recipe.json",
    "tokenizer.json",
    "tokenizer_config.json",
}

SAME_LOGITS = """
import sys, torch
from safetensors.torch import load_file

expected = load_file(sys.argv[1])["logits"]
ids = torch.arange(expected.shape[1])[None]
with torch.inference_mode():
    assert torch.equal(model(ids).logits, expected)
    with model.disable_adapter():
        assert not torch.equal(model(ids).logits, expected)
"""


@pytest.fixture
def run(tiny: Tiny, tmp_path: Path) -> Run:
    """A copy of the finished run, to change at will."""
    return Run(Path(shutil.copytree(tiny.run.path, tmp_path / tiny.run.id)))


def test_the_cards_own_code_loads_what_was_published(tiny: Tiny, hub: Hub, python: Python, tmp_path: Path) -> None:
    """The code in the published card, run elsewhere, gives exactly the logits of the adapter in the run's folder."""
    assert python.publish(tiny.run, "ada/tone").returncode == 0
    code = re.search(r"```python\n(.*?)```", hub.repos["ada/tone"].head.files["README.md"].decode(), re.DOTALL)
    assert code is not None
    (tmp_path / "card.py").write_text(code[1] + SAME_LOGITS, encoding="utf-8")
    elsewhere = replace(python, home=tmp_path / "elsewhere")
    done = elsewhere(tmp_path / "card.py", tiny.logits, token=ADA)
    assert done.returncode == 0, done.stderr


def test_publishing_is_one_commit_to_a_private_repository(run: Run, hub: Hub, python: Python) -> None:
    """A run arrives whole in one commit, private, with a card that the Hub validated, and nothing else."""
    done = python.publish(run, "ada/tone")
    assert (done.returncode, done.stderr) == (0, "")
    repo = hub.repos["ada/tone"]
    assert f"Published: {hub.endpoint}/ada/tone (private)\n  9 files are on the Hub as they are here." in done.stdout
    assert (repo.private, len(repo.commits), set(repo.head.files)) == (True, 2, FILES)
    assert [card["base_model"] for card in hub.cards] == [BASE]
    assert hub.unknown == []


def test_publishing_again_adds_nothing(run: Run, hub: Hub, python: Python) -> None:
    """The same run published twice leaves one commit, so a lost answer is mended by running it again."""
    assert [python.publish(run, "ada/tone").returncode for _ in range(2)] == [0, 0]
    assert len(hub.repos["ada/tone"].commits) == 2


def test_a_base_model_in_a_folder_stays_unnamed(run: Run, tiny: Tiny, hub: Hub, python: Python) -> None:
    """No published file has the path of a base model on the publisher's disk."""
    for name in ("recipe.json", "adapter/adapter_config.json"):
        path = run.path / name
        path.write_text(path.read_text(encoding="utf-8").replace(BASE, str(tiny.base)), encoding="utf-8")
    assert str(tiny.base) in (run.adapter / "adapter_config.json").read_text(encoding="utf-8")
    assert python.publish(finish(run), "ada/tone").returncode == 0
    files = hub.repos["ada/tone"].head.files
    assert [name for name, data in files.items() if str(tiny.base.parent).encode() in data] == []


def test_a_public_repository_is_not_mistaken_for_a_private_one(run: Run, hub: Hub, python: Python) -> None:
    """What should be private never goes to a repository that is public already, unless asked for."""
    refused = python.publish(run, BASE)
    assert (refused.returncode, len(hub.repos[BASE].commits)) == (2, 1)
    assert "is public" in refused.stderr
    assert python.publish(run, BASE, "--public", "--overwrite").returncode == 0
    assert len(hub.repos[BASE].commits) == 2


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("hf_nobodysCanary", "Run hf auth login with a new one"),
        (ADA_READS, "The token of ada may only read"),
        (BOB, "bob is neither ada nor a member of it"),
    ],
)
def test_a_token_that_is_not_good_enough(run: Run, hub: Hub, python: Python, token: str, told: str) -> None:
    """An unknown token, one that may only read, and somebody else's are each told in one line; nothing is published."""
    done = python.publish(run, "ada/tone", token=token)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert told in done.stderr
    assert token not in done.stderr
    assert "ada/tone" not in hub.repos


def test_a_hub_that_cannot_be_reached(run: Run, python: Python) -> None:
    """With nobody at the Hub's address, one line names the address and says that nothing was published."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = replace(python, endpoint=nowhere).publish(run, "ada/tone")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{nowhere} cannot be reached, so it is not known whose token this is." in done.stderr


def test_the_token_stays_nowhere(run: Run, python: Python) -> None:
    """After publishing, and after being refused, no file and no output has the token."""
    said = [python.publish(run, "ada/tone"), python.publish(run, "bob/tone")]
    assert [done.returncode for done in said] == [0, 2]
    assert [done for done in said if ADA in done.stdout + done.stderr] == []
    files = [path for folder in (run.path, python.home) for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if ADA.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("token", ["hf_canary\nmore", "hf_canary é", " "])
def test_a_token_that_cannot_be_sent_is_not_shown(token: str) -> None:
    """A token with stray characters is refused before the HTTP client can quote it in an error."""
    with pytest.raises(PublishError, match="Copy it again") as refused:
        client(token)
    assert "canary" not in str(refused.value)


def test_a_run_that_has_not_finished_is_refused(tmp_path: Path) -> None:
    """A stopped run is not published, and the error says that it was stopped."""
    run = measured_run(tmp_path)
    run.set_state(State("stopped", "Stopped before the end."))
    with pytest.raises(RunError, match="is stopped, not finished"):
        publish(run, "ada/tone", api=client(ADA))


def test_a_run_without_its_adapter_is_refused(tmp_path: Path, hub: Hub) -> None:
    """Where the adapter was removed, the error names the folder in which it should be."""
    run = finish(measured_run(tmp_path))
    with pytest.raises(PublishError, match=re.escape(str(run.adapter))):
        publish(run, "ada/tone", api=client(ADA, endpoint=hub.endpoint))
    assert "ada/tone" not in hub.repos


@pytest.mark.parametrize("repo_id", ["tone", "ada/tone/more", "ada/--x", "ada/töne", "ada/tone\n", "/tone", ""])
def test_a_name_that_is_no_owner_and_name(tmp_path: Path, repo_id: str) -> None:
    """What cannot be owner/name is refused before anything is sent."""
    with pytest.raises(PublishError):
        publish(finish(measured_run(tmp_path)), repo_id, api=client(ADA))


def on_the_own_base(run: Run, tiny: Tiny) -> Run:
    """The run, whose base model lies in a folder, so that the adapters can be compared."""
    recipe = run.path / "recipe.json"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace(BASE, str(tiny.base)), encoding="utf-8")
    return finish(run)


def test_it_proves_that_the_adapter_computes_the_same(run: Run, tiny: Tiny, python: Python) -> None:
    """Where the base model is at hand, the adapter fetched from the Hub is seen to give the same logits."""
    done = python.publish(on_the_own_base(run, tiny), "ada/tone", "--compare")
    assert done.returncode == 0, done.stderr
    assert "the adapter fetched from there gives the same logits on 5 prompts" in done.stdout


def test_an_adapter_that_computes_something_else_is_told(run: Run, tiny: Tiny, hub: Hub, python: Python) -> None:
    """An adapter on the Hub that loads well but gives other logits than the run's own is found out."""
    assert python.publish(on_the_own_base(run, tiny), "ada/tone").returncode == 0
    config = run.adapter / "adapter_config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"lora_alpha": 8', '"lora_alpha": 16'), "utf-8")
    api = client(ADA, endpoint=hub.endpoint)
    there, sent = get_repository(api, "ada/tone"), hub.repos["ada/tone"].head.files
    with pytest.raises(PublishError, match=r"computes other logits .* on 5 of 5 prompts"):
        verify_adapter(api, there, sent, there.head, run=run)


def test_licence_and_languages_are_the_base_models(run: Run, hub: Hub, python: Python) -> None:
    """The card takes them from the base model's card on the Hub."""
    assert python.publish(run, "ada/tone").returncode == 0
    card = RepoCard(hub.repos["ada/tone"].head.files["README.md"].decode()).data
    assert (card.license, card.license_name, card.language) == ("other", "tiny", ["en"])
    assert card.license_link == f"https://huggingface.co/{BASE}/blob/main/LICENSE"


def test_pairs_and_adapter_name_each_other(run: Run, hub: Hub, python: Python) -> None:
    """With its data, a run becomes two repositories that link to each other, and the pairs are read back the same."""
    done = python.publish(run, "ada/tone", "--with-data")
    assert done.returncode == 0, done.stderr
    model, data = hub.repos["ada/tone"].head.files, hub.datasets["ada/tone-preferences"].head.files
    assert RepoCard(model["README.md"].decode()).data.datasets == ["ada/tone-preferences"]
    assert "https://huggingface.co/ada/tone" in data["README.md"].decode()
    assert hub.datasets["ada/tone-preferences"].private
    code = (
        "from dpo_hub import read_preferences as read; from dpo_hub.preferences.pairs import digest; "
        "print(digest([p for s in ('train', 'test') for p in read(f'ada/tone-preferences:{s}').pairs]))"
    )
    assert python("-c", code, token=ADA).stdout.strip() == digest(run.pairs("train") + run.pairs("held_out"))


@pytest.mark.full
def test_the_merged_model_needs_no_adapter(run: Run, tiny: Tiny, hub: Hub, python: Python, tmp_path: Path) -> None:
    """The merged model, loaded by Transformers alone, computes what base and adapter do together."""
    done = python.publish(on_the_own_base(run, tiny), "ada/tone", "--merge")
    assert done.returncode == 0, done.stderr
    files = hub.repos["ada/tone-merged"].head.files
    assert [name for name, data in files.items() if str(tiny.base.parent).encode() in data] == []
    code = re.search(r"```python\n(.*?)```", files["README.md"].decode(), re.DOTALL)
    assert code is not None
    compared = SAME_LOGITS.partition("    with model")[0].replace("torch.equal(model(ids).logits, expected)", CLOSE)
    (tmp_path / "merged.py").write_text(code[1] + compared, encoding="utf-8")
    done = python(tmp_path / "merged.py", tiny.logits, token=ADA)
    assert done.returncode == 0, done.stderr


def test_what_was_edited_on_the_hub_is_not_written_over(run: Run, hub: Hub, python: Python) -> None:
    """Publishing again over a card that somebody corrected there is refused, with whose commit it is, unless asked."""
    assert python.publish(run, "ada/tone").returncode == 0
    api = client(ADA, endpoint=hub.endpoint)
    commit_once(api, get_repository(api, "ada/tone"), {"README.md": MINE}, message="Update README.md")
    refused = python.publish(run, "ada/tone")
    assert refused.returncode == 2
    assert 'last changed by "Update README.md" (ada), and not by a publish' in refused.stderr
    assert hub.repos["ada/tone"].head.files["README.md"] == MINE
    assert python.publish(run, "ada/tone", "--overwrite").returncode == 0
    assert hub.repos["ada/tone"].head.files["README.md"] != MINE


def test_files_of_an_earlier_publish_go(run: Run, hub: Hub, python: Python) -> None:
    """A file of the model that this run does not have is taken out, for loaders might prefer it."""
    (run.adapter / "added_tokens.json").write_text("{}", encoding="utf-8")
    assert python.publish(run, "ada/tone").returncode == 0
    (run.adapter / "added_tokens.json").unlink()
    assert python.publish(run, "ada/tone").returncode == 0
    assert set(hub.repos["ada/tone"].head.files) == FILES


def test_what_somebody_else_changed_is_told(hub: Hub) -> None:
    """A commit on top of a head that is no longer one is not made, and the error says whose commit did what."""
    api = client(ADA, endpoint=hub.endpoint)
    seen = get_repository(api, BASE)
    commit_once(api, seen, {"notes.txt": b"theirs"}, message="A correction")
    with pytest.raises(PublishError, match=r'changed meanwhile \("A correction" by ada\), which touched notes.txt'):
        commit_once(api, seen, {"other.txt": b"ours"}, message="Ours")
    assert "other.txt" not in hub.repos[BASE].head.files


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "Run hf auth login"),
        (402, "settings/billing"),
        (403, "Use one with write access"),
        (404, "Check the name, and whose token it is"),
        (409, "something else is being done with it"),
        (418, "The Hub answered 418"),
    ],
)
def test_each_refusal_says_what_to_do(run: Run, hub: Hub, status: int, told: str) -> None:
    """Whatever the Hub says no to, one sentence or two say what it means and what to do."""
    api = client(ADA, endpoint=hub.endpoint)
    publish(run, "ada/before", api=api, compare=False)
    hub.fault = Fault(
        len(hub.asked) + next(n for n, asked in enumerate(hub.asked) if "preupload" in asked), str(status)
    )
    with pytest.raises(PublishError) as refused:
        publish(run, "ada/tone", api=api, compare=False)
    assert told in str(refused.value)
    assert "The Hub says: not now." in str(refused.value)
    assert "so ada/tone was not published" in str(refused.value)
    assert ADA not in str(refused.value)


class Client(HfApi):
    """A client whose commits end as *error* says, before or after they are made."""

    def __init__(self, hub: Hub, error: Exception, *, late: bool = False) -> None:
        super().__init__(hub.endpoint, token=ADA)
        self.error, self.late, self.tries = error, late, 0

    def create_commit(self, *args: Any, **more: Any) -> Any:
        self.tries += 1
        if self.late:
            super().create_commit(*args, **more)
        raise self.error


def refusal(status: int) -> ConnectionError:
    """What the client's part that sends large files makes of a refusal."""
    return ConnectionError(f"Network error: Request error: HTTP status client error ({status} Forbidden), domain: x")


@pytest.mark.parametrize(
    ("error", "told", "tries"),
    [
        (refusal(403), "Use one with write access", 1),
        (
            RuntimeError("Data processing error: bad"),
            "could not be uploaded, so nothing was changed there: Data pro",
            1,
        ),
        (PermissionError("token is not good"), "could not be uploaded", 1),
        (ValueError("Invalid metadata in README.md.\nlicense is wrong"), "refuses the card of ada/tone", 1),
        (httpx2.TooManyRedirects("again and again"), "not known whether all arrived", 4),
        (json.JSONDecodeError("Expecting value", "<html>", 0), "not known whether all arrived", 4),
    ],
)
def test_whatever_the_client_makes_of_a_failure_is_a_sentence(  # noqa: PLR0913, PLR0917
    run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str, tries: int
) -> None:
    """Its errors of many kinds end as one of ours, in one line, and only what may pass is tried again."""
    monkeypatch.setattr(calls, "WAITS", (0.0, 0.0, 0.0))
    api = Client(hub, error)
    with pytest.raises(PublishError) as raised:
        publish(run, "ada/tone", api=api, compare=False)
    assert told in str(raised.value)
    assert (api.tries, str(raised.value).count("\n")) == (tries, 0)


def test_a_commit_that_was_made_is_not_denied(run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each answer is lost after the commit was made, nobody says that nothing was published."""
    monkeypatch.setattr(calls, "WAITS", (0.0,))
    with pytest.raises(UnreachableError, match="not known whether all arrived"):
        publish(run, "ada/tone", api=Client(hub, httpx2.ReadError("gone"), late=True), compare=False)
    assert len(hub.repos["ada/tone"].commits) == 2
    publish(run, "ada/tone", api=client(ADA, endpoint=hub.endpoint), compare=False)
    assert len(hub.repos["ada/tone"].commits) == 2


def test_a_commit_is_found_under_later_ones(hub: Hub) -> None:
    """Where somebody changed the repository after a commit whose answer was lost, that commit is found."""
    api = client(ADA, endpoint=hub.endpoint)
    seen = get_repository(api, BASE)
    ours = commit_once(api, seen, {"a.txt": b"ours"}, message="Ours")
    commit_once(api, get_repository(api, BASE), {"a.txt": b"theirs"}, message="Theirs")
    assert commit_once(api, seen, {"a.txt": b"ours"}, message="Ours") == ours
    assert hub.repos[BASE].head.files["a.txt"] == b"theirs"


def test_a_hub_that_goes_away_for_good(run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is silent for long, the error says whether anything was published; running it again mends it."""
    monkeypatch.setattr(calls, "WAITS", (0.0,))
    api = client(ADA, endpoint=hub.endpoint)
    publish(run, "ada/one", api=api, compare=False)
    landed = next(n for n, asked in enumerate(hub.asked) if "/commit/" in asked)
    for onwards, told, commits in (
        (landed, "so it is not known whether all arrived", 1),
        (landed + 1, "ada/two was published", 2),
    ):
        hub.asked.clear()
        hub.blobs.clear()
        hub.fault = Fault(onwards, "500", onwards=True)
        with pytest.raises(UnreachableError, match=told):
            publish(run, "ada/two", api=api, compare=False)
        assert len(hub.repos["ada/two"].commits) == commits
    hub.fault = None
    publish(run, "ada/two", api=api, compare=False)
    assert len(hub.repos["ada/two"].commits) == 2


def test_publishing_loads_no_torch(python: Python) -> None:
    """The light installation, without torch, can publish."""
    heavy = ("torch", "transformers", "peft", "gradio")
    code = f"import sys, dpo_hub.hub.publish; print([name for name in {heavy} if name in sys.modules])"
    assert python("-c", code).stdout == "[]\n"


def test_a_change_that_the_hub_does_not_list_yet_is_to_be_tried_again(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a commit is refused for a newer one and the listing still ends with the old one, nobody can be named."""
    api = client(ADA, endpoint=hub.endpoint)
    seen = get_repository(api, BASE)
    before = api.list_repo_commits(BASE)
    commit_once(api, seen, {"notes.txt": b"theirs"}, message="A correction")
    monkeypatch.setattr(api, "list_repo_commits", lambda *_, **__: before)
    with pytest.raises(UnreachableError, match="does not show yet by what"):
        commit_once(api, seen, {"other.txt": b"ours"}, message="Ours")
    assert "other.txt" not in hub.repos[BASE].head.files
