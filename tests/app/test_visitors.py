"""Who visits, how much they may ask, and of which models."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

import dpo_hub
from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.app import limits as limits_module
from dpo_hub.app.handlers import files, training
from dpo_hub.app.handlers.recipes import recipe_of
from dpo_hub.app.limits import Limits, allowed_model, limits
from dpo_hub.app.visitors import Visitor, on_space, signs_in, visitor
from dpo_hub.errors import RecipeError, RunError, SignInError
from dpo_hub.runs.run import home
from dpo_hub.runs.state import Process, State

SPACE = {"SYSTEM": "spaces", "SPACE_ID": "ada/space", "OPENID_PROVIDER_URL": "http://127.0.0.1"}
CLIENT = {"OAUTH_CLIENT_ID": "id", "OAUTH_CLIENT_SECRET": "secret", "OAUTH_SCOPES": "openid"}
LIMITS = ("ROWS", "UPLOAD_MB", "FILES", "EPOCHS", "RUNS", "QUEUE")
REFUSED = (
    "http://127.0.0.1/x https://huggingface.co/a/b file:///etc hf://a/b s3://a/b //a/b /etc /etc/passwd ../a a/../b "
    "a/.. a/b@main a/b@main/../../c a/b/c a/b? a/b# a/b%2f a\\b ~/a . .. a ./a/b a/-b -a/b a/b:c \0 a/\0b"
).split(" ")


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One's own machine, with nothing asked of it, in an empty folder."""
    for name in (*SPACE, *CLIENT, *(f"DPO_HUB_MAX_{limit}" for limit in LIMITS)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(limits_module, "_BEGUN", [])
    monkeypatch.setenv("DPO_HUB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Space where people sign in."""
    for name, value in (SPACE | CLIENT).items():
        monkeypatch.setenv(name, value)


def _session(name: Any = "Ada", until: Any = None, account: Any = "a1", **more: Any) -> dict[str, Any]:
    expires = time.time() + 60 if until is None else until
    about = {"preferred_username": name, "sub": account}
    return {"oauth_info": {"userinfo": about, "expires_at": expires, **more}}


def test_on_ones_own_machine_a_session_says_nothing() -> None:
    """Anybody can make one there: the runs are those of the command line, whoever it names, and there is no token."""
    for session in (None, {}, _session(access_token="hf_x"), _session("../x")):
        assert visitor(session) == Visitor("", home())


@pytest.mark.usefixtures("space")
def test_who_signs_in_has_a_shelf_and_a_token() -> None:
    """Their name is as the Hub writes it, their shelf stays with the account, and no print shows the token."""
    ada = visitor(_session(access_token="hf_ada"))
    assert ada == Visitor("Ada", home() / "visitors" / "a1", "hf_ada")
    assert "hf_ada" not in repr(ada)
    assert visitor(_session("Ada-by-a-new-name")).shelf == ada.shelf
    assert visitor(_session("Ada", account="a2")).shelf != ada.shelf
    assert visitor(_session(access_token=["hf"])).token is None


@pytest.mark.usefixtures("space")
@pytest.mark.parametrize(
    "name", ["", ".", "..", "../ada", "a/b", "a\\b", "ada\n", "é", "-a", "a" * 97, None, 7, ["ada"]]
)
def test_what_is_no_name_is_nobody(name: Any) -> None:
    """No name makes a path, and neither does what is no account."""
    for session in (_session(name), _session(account=name)):
        with pytest.raises(SignInError, match="Sign in first"):
            visitor(session)


@pytest.mark.usefixtures("space")
@pytest.mark.parametrize("until", [0, -1, True, "never", [], float("nan"), {"in": 1}])
def test_an_expired_session_is_nobody(until: Any) -> None:
    """A session has an end that lies ahead."""
    with pytest.raises(SignInError, match="Sign in first"):
        visitor(_session(until=until))


@pytest.mark.usefixtures("space")
@pytest.mark.parametrize(
    "session", [None, {}, {"oauth_info": None}, {"oauth_info": "ada"}, {"oauth_info": {"userinfo": []}}]
)
def test_a_session_of_another_kind_is_nobody(session: Any) -> None:
    """What is not what Gradio leaves there is as good as nothing."""
    with pytest.raises(SignInError, match="Sign in first"):
        visitor(session)


@pytest.mark.usefixtures("space")
@pytest.mark.parametrize("missing", [*SPACE, *CLIENT])
def test_where_sign_in_is_not_set_up_there_is_nobody(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio would then sign everybody in as the owner, or sign with a constant: such a session counts for nothing."""
    monkeypatch.setenv(missing, "")
    assert on_space()
    assert not signs_in()
    with pytest.raises(SignInError, match="no sign-in"):
        visitor(_session())


def test_ones_own_machine_has_the_limits_that_one_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """None by itself."""
    assert limits() == Limits()
    monkeypatch.setenv("DPO_HUB_MAX_ROWS", "7")
    monkeypatch.setenv("DPO_HUB_MAX_UPLOAD_MB", "3")
    assert limits() == Limits(rows=7, upload_mb=3)


@pytest.mark.usefixtures("space")
def test_a_space_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """They can be set."""
    assert limits() == Limits(rows=50_000, epochs=10, upload_mb=50, files=100, runs=20, waiting=2, queue=10)
    monkeypatch.setenv("DPO_HUB_MAX_RUNS", "5")
    monkeypatch.setenv("DPO_HUB_MAX_QUEUE", "1")
    assert limits() == Limits(rows=50_000, epochs=10, upload_mb=50, files=100, runs=5, waiting=2, queue=1)


def test_a_run_has_so_many_epochs(few_pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More are refused before anything is made."""
    monkeypatch.setenv("DPO_HUB_MAX_EPOCHS", "2")
    assert recipe_of({"model": "demo", "epochs": 2.0}).epochs == 2
    with pytest.raises(RecipeError, match=r"Epochs are 2\.5, and a run may have 2 here"):
        training.start_training(
            visitor(None), files.save_copy(home(), few_pairs, "a.csv"), {"model": "demo", "epochs": 2.5}
        )
    assert not visitor(None).runs()


@pytest.mark.parametrize("asked", ["0", "-1", "many", "1e3", "5 ", "٣"])
def test_a_limit_is_a_whole_number(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything else is told when the app starts."""
    monkeypatch.setenv("DPO_HUB_MAX_ROWS", asked)
    with pytest.raises(RecipeError, match=r"DPO_HUB_MAX_ROWS is .* it must be a whole number above 0"):
        limits()


def _wait(run: Run) -> None:
    """Have *run* wait, with this process as its keeper, and nothing started."""
    run.set_state(State("queued", keeper=Process.of()))


def _ask(name: str, few_pairs: Path, file: str = "demo:tone") -> Run:
    someone = visitor(_session(name, account=name))
    started = training.start_training(someone, file, {"model": "demo"})
    found = someone.run(started)
    assert found is not None
    return found


@pytest.mark.usefixtures("space")
def test_runs_wait_up_to_a_limit(few_pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One visitor has two in line and all have as many as the line takes; whoever is at work makes room."""
    monkeypatch.setattr(limits_module, "start", _wait)
    monkeypatch.setenv("DPO_HUB_MAX_QUEUE", "3")
    first, second = _ask("ada", few_pairs), _ask("ada", few_pairs)
    with pytest.raises(RunError, match="You already have"):
        _ask("ada", few_pairs)
    _ask("bob", few_pairs)
    with pytest.raises(RunError, match="The queue is full"):
        _ask("eve", few_pairs)
    assert not visitor(_session("eve", account="eve")).runs()
    first.set_state(State("running", worker=Process.of()))
    second.remove()
    assert _ask("ada", few_pairs).state.status == "queued"


@pytest.mark.usefixtures("space")
def test_a_visitor_keeps_up_to_a_limit(few_pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that have ended count too, and another's do not."""
    monkeypatch.setattr(limits_module, "start", _wait)
    monkeypatch.setenv("DPO_HUB_MAX_RUNS", "2")
    pairs = read_preferences(few_pairs)
    for _ in range(2):
        Run.create(pairs, Recipe(), shelf=visitor(_session(account="ada")).shelf).set_state(State("finished"))
    with pytest.raises(RunError, match="You have 2 runs here, and more are not kept for one visitor"):
        _ask("ada", few_pairs)
    _ask("bob", few_pairs)


@pytest.mark.usefixtures("space")
def test_a_space_takes_models_of_the_hub_only(tmp_path: Path) -> None:
    """A folder that is there is refused even where it reads as a name."""
    (tmp_path / "some" / "folder").mkdir(parents=True)
    for model in (*REFUSED, "some/folder", str(tmp_path), ""):
        with pytest.raises(
            RecipeError, match="is no base model: write demo, smollm2, or a name on the Hub as owner/name"
        ):
            allowed_model(model)
    assert [allowed_model(name) for name in ("demo", "smollm2", " Qwen/Qwen2.5-0.5B ", "a_b/c-d")] == [
        "demo",
        "smollm2",
        "Qwen/Qwen2.5-0.5B",
        "a_b/c-d",
    ]


def test_ones_own_machine_takes_folders_and_files_too(tmp_path: Path) -> None:
    """Those that are there; addresses stay refused."""
    (tmp_path / "some" / "folder").mkdir(parents=True)
    (tmp_path / "some.gguf").touch()
    for model in ("some/folder", str(tmp_path), "demo", "a/b", "smollm2", str(tmp_path / "some.gguf")):
        assert allowed_model(model) == model
    for model in {*REFUSED} - {"/etc", ".", ".."}:
        with pytest.raises(RecipeError, match="or a folder or GGUF file of this machine"):
            allowed_model(model)


def test_no_code_of_a_repository_is_run() -> None:
    """Nothing in the package trusts remote code."""
    sources = Path(dpo_hub.__file__).parent.rglob("*.py")
    told = [
        found for source in sources for found in re.findall(r"trust_remote_code\W+(\w+)", source.read_text("utf-8"))
    ]
    assert set(told) == {"False"}
