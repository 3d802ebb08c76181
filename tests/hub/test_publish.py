"""Publishing against a Hub on this machine, with the real client in a process of its own."""

from __future__ import annotations

import re
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from dpo_hub import Run
from dpo_hub.errors import PublishError, RunError
from dpo_hub.hub.publish import publish
from dpo_hub.state import State

from .conftest import ADA, ADA_READS, BASE, BOB, Python, Tiny, finish, measured_run
from .loopback import Hub

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
    assert done.returncode == 0, done.stderr
    repo = hub.repos["ada/tone"]
    assert f"{hub.endpoint}/ada/tone" in done.stdout
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
    assert python.publish(run, BASE, "--public").returncode == 0
    assert len(hub.repos[BASE].commits) == 2


@pytest.mark.parametrize(
    ("token", "told"),
    [("hf_nobodysCanary", "hf auth login"), (ADA_READS, "may not write to ada"), (BOB, "may not write to ada")],
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
    assert f"{nowhere} cannot be reached, so nothing was published" in done.stderr


def test_the_token_stays_nowhere(run: Run, python: Python) -> None:
    """After publishing, and after being refused, no file and no output has the token."""
    said = [python.publish(run, "ada/tone"), python.publish(run, "bob/tone")]
    assert [done.returncode for done in said] == [0, 2]
    assert [done for done in said if ADA in done.stdout + done.stderr] == []
    files = [path for folder in (run.path, python.home) for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if ADA.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("token", ["hf_canary\nmore", "hf_canary é", " "])
def test_a_token_that_cannot_be_sent_is_not_shown(tmp_path: Path, token: str) -> None:
    """A token with stray characters is refused before the HTTP client can quote it in an error."""
    with pytest.raises(PublishError, match="Copy it again") as refused:
        publish(finish(measured_run(tmp_path)), "ada/tone", token=token)
    assert "canary" not in str(refused.value)


def test_a_run_that_has_not_finished_is_refused(tmp_path: Path) -> None:
    """A stopped run is not published, and the error says that it was stopped."""
    run = measured_run(tmp_path)
    run.set_state(State("stopped", "Stopped before the end."))
    with pytest.raises(RunError, match="is stopped, not finished"):
        publish(run, "ada/tone", token=ADA)


def test_a_run_without_its_adapter_is_refused(tmp_path: Path) -> None:
    """Where the adapter was removed, the error names the folder in which it should be."""
    run = finish(measured_run(tmp_path))
    with pytest.raises(PublishError, match=re.escape(str(run.adapter))):
        publish(run, "ada/tone", token=ADA)


@pytest.mark.parametrize("repo_id", ["tone", "ada/tone/more", "ada/--x", "ada/töne", "ada/tone\n", "/tone", ""])
def test_a_name_that_is_no_owner_and_name(tmp_path: Path, repo_id: str) -> None:
    """What cannot be owner/name is refused before anything is sent."""
    with pytest.raises(PublishError):
        publish(finish(measured_run(tmp_path)), repo_id, token=ADA)


def test_publishing_loads_no_torch(python: Python) -> None:
    """The light installation, without torch, can publish."""
    heavy = ("torch", "transformers", "peft", "gradio")
    code = f"import sys, dpo_hub.hub.publish; print([name for name in {heavy} if name in sys.modules])"
    assert python("-c", code).stdout == "[]\n"
