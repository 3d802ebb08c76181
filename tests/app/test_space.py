"""A Space for many: whoever visits sees what is theirs, and does nothing to what is not."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from itsdangerous import TimestampSigner

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.app.handlers import files
from dpo_hub.runs.state import Process, State
from dpo_hub.training.metrics import StepMetrics

from ..hub.conftest import ADA, BOB
from ..hub.loopback import Commit, Hub, Repo, serving
from .space import OWNER, SECRET, Guest, Space, file_data, serving_space

CANARY = "kestrel7Q"
"""Stands in everything of Ada's, and nowhere else."""
SIGN_IN = "Sign in first: your files and runs are kept for your account"
TYPED = ("textbox", "dropdown")
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>"
NOT_ONE_MORE = "You have 3 runs here"


def _pairs(path: Path, words: str) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = ([f"{words} asks {n}", f"{words} is kind {n}", f"{words} is rude {n}"] for n in range(12))
        csv.writer(file).writerows([["prompt", "chosen", "rejected"], *rows])
    return path


def _digest(folder: Path) -> str:
    """Of every name and every content in *folder*, except signs of life."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return found.hexdigest()


@dataclass
class Ada:
    """What Ada has on the Space: a finished run, one at work, and a file."""

    shelf: Path
    finished: Run
    working: Run
    worker: subprocess.Popen[bytes]
    file: str

    @property
    def file_path(self) -> str:
        return files.find(self.shelf, self.file).where


def _run(shelf: Path, pairs: Path) -> Run:
    """A run with the canary wherever there is text."""
    run = Run.create(read_preferences(pairs), Recipe.for_model(), shelf=shelf)
    run.write("report.json", json.dumps(run.report | {"source": f"{CANARY}.csv"}))
    run.write("log.txt", f"{CANARY} was read\n")
    run.write("README.md", f"# {CANARY}\n")
    run.write("evaluation.json", json.dumps({"pairs": 2, "loss": 0.5, "margin": 0.75, "reward_accuracy": 1.0}))
    run.write("samples.jsonl", json.dumps(dict.fromkeys(("prompt", "chosen", "before", "after"), CANARY)) + "\n")
    run.append_metrics(dict.fromkeys((one.name for one in fields(StepMetrics)), 0.5) | {"step": 1})
    return run


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    table = b"prompt,chosen,rejected\n" + b"".join(b"%s %d,yes,no\n" % (CANARY.encode(), n) for n in range(9))
    secret = Repo(private=True, commits=[Commit("pairs", {"pairs.csv": table})])
    with serving(Hub({ADA: "ada", BOB: "bob"}, datasets={"ada/secret": secret})) as knows:
        yield knows


@pytest.fixture(scope="module")
def space(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    settings = {"DPO_HUB_MAX_UPLOAD_MB": "1", "DPO_HUB_MAX_RUNS": "3"}
    with serving_space(hub, tmp_path_factory.mktemp("space"), settings) as served:
        yield served


@pytest.fixture(scope="module")
def ada(space: Space, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ada]:
    shelf = space.home / "visitors" / "id-of-ada"
    pairs = _pairs(tmp_path_factory.mktemp("pairs") / "pairs.csv", CANARY)
    finished, working = _run(shelf, pairs), _run(shelf, pairs)
    finished.set_state(State("finished"))
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    working.beat()
    working.set_state(State("running", CANARY, steps=9, worker=Process.of(worker.pid)))
    yield Ada(shelf, finished, working, worker, files.save_copy(shelf, pairs, f"{CANARY}.csv"))
    worker.kill()
    worker.wait()


@pytest.fixture(scope="module")
def her(space: Space) -> Guest:
    return Guest(space).sign_in("ada")


@pytest.fixture(scope="module")
def bob(space: Space) -> Guest:
    return Guest(space).sign_in("bob")


@pytest.fixture(scope="module")
def nobody(space: Space) -> Guest:
    return Guest(space)


def _data(endpoint: dict[str, Any], run: str, file: str, typed: str = "") -> list[Any]:
    """What the page would send, with a *run* and a *file*, and with *typed* in what takes text."""
    given = {"run": run, "file": file}

    def of(part: dict[str, Any]) -> Any:
        name = part["props"].get("elem_id")
        if name in given:
            return given[name]
        return typed if typed and part["type"] in TYPED else part["props"].get("value")

    return [of(part) for part in endpoint["inputs"]]


def _names(ada: Ada, run: Run) -> list[tuple[str, str, str]]:
    """Run, file and text to try on each endpoint: Ada's by their names, and by every kind of path."""
    file = ada.file_path
    paths = [
        (f"../../id-of-ada/runs/{run.id}", f"../../id-of-ada/files/{ada.file}"),
        (f"../id-of-ada/runs/{run.id}/../{run.id}", f"demo:../../../visitors/id-of-ada/files/{ada.file}"),
        (str(run.path), file),
        (run.path.as_uri(), Path(file).as_uri()),
        (f"..%2F..%2Fada%2Fruns%2F{run.id}", f"hub:{file}"),
        (run.id[:9], f"hub:..{file}"),
        ("last", "*"),
    ]
    own = (run.id, ada.file)
    return [(*own, ""), (*own, run.id), (*own, ada.file), *((*pair, pair[0]) for pair in paths)]


@pytest.mark.parametrize("who", ["bob", "nobody"])
def test_no_endpoint_reads_or_changes_what_is_anothers(
    who: str, space: Space, ada: Ada, request: pytest.FixtureRequest
) -> None:
    """Every endpoint of the page, given Ada's run and file by name or path, tells others nothing and does nothing."""
    guest: Guest = request.getfixturevalue(who)
    before = _digest(ada.shelf)
    leaks = []
    endpoints = space.endpoints()
    named = [one for one in endpoints if {part["props"].get("elem_id") for part in one["inputs"]} & {"run", "file"}]
    # Who has not signed in is turned away before any name is looked at.
    most = None if who == "bob" else 1
    for run_id, file, typed in [*_names(ada, ada.finished)[:most], *_names(ada, ada.working)[:1]]:
        asked = endpoints if (run_id, file, typed) == (ada.finished.id, ada.file, "") else named
        calls = [(one["id"], _data(one, run_id, file, typed)) for one in asked]
        told = guest.call(calls, run=run_id, file=file, step="compare")
        leaks += [(one["name"], run_id, file) for one, text in zip(asked, told, strict=True) if CANARY in text]
    assert not leaks
    assert _digest(ada.shelf) == before
    assert ada.worker.poll() is None


def test_she_herself_reads_all_of_it(ada: Ada, her: Guest) -> None:
    """The same questions give Ada her file, her run and her prompts: the others' silence is not for want of words."""
    run = ada.finished.id
    assert CANARY in her.ask("_show", ada.file)
    assert CANARY in her.ask("_watch", run, "")
    assert CANARY in her.ask("_open", run, None)
    assert run in her.ask("_runs", "")
    assert run in her.ask("_arrive", run=run)


def test_who_has_not_signed_in_is_told_to(ada: Ada, nobody: Guest) -> None:
    """A visitor without a name is told what to do."""
    for name, data in (("_show", [ada.file]), ("_watch", [ada.finished.id, ""]), ("_runs", [""])):
        assert SIGN_IN in nobody.ask(name, *data)


def test_the_addresses_past_the_queue_tell_others_nothing(space: Space, ada: Ada, bob: Guest) -> None:
    """A handler called directly, or as a program's endpoint, keeps what is Ada's as it does from the queue."""
    for one in space.endpoints():
        body = {"data": _data(one, ada.finished.id, ada.file), "fn_index": one["id"], "session_hash": "any"}
        for path in (f"/gradio_api/run/{one['name']}", f"/gradio_api/api/{one['name']}", "/gradio_api/run/predict"):
            assert CANARY not in bob.post(path, json=body).text
        assert CANARY not in bob.post(f"/gradio_api/call/{one['name']}", json=body).text


def test_downloads_are_for_who_owns_them(ada: Ada, her: Guest, bob: Guest, nobody: Guest) -> None:
    """A run and a file are downloaded by Ada, and by nobody else, by name or by path."""
    own = [f"/download/run/{ada.finished.id}", f"/download/file/{ada.file}"]
    assert [her.get(path).status_code for path in own] == [200, 200]
    assert CANARY in her.get(own[1]).text
    others = [f"/download/run/{quote(f'../id-of-ada/runs/{ada.finished.id}', safe='')}"]
    others += [
        f"/download/file/{quote(name, safe='')}" for name in (ada.file_path, f"../../id-of-ada/files/{ada.file}")
    ]
    for guest in (bob, nobody):
        assert [guest.get(path).status_code for path in own + others] == [404] * 5


def test_gradios_file_addresses_give_nothing_of_home_or_of_the_system(
    space: Space, ada: Ada, her: Guest, bob: Guest
) -> None:
    """No file of a visitor's, not even their own, and none of the machine's is read there, however it is spelt."""
    found = [ada.finished.path / "log.txt", ada.finished.path / "preferences.parquet", Path(ada.file_path), space.home]
    found += [Path("/etc/passwd"), Path("/proc/self/environ"), space.uploads.parent / "hf" / "token"]
    spelt = []
    for path in map(str, found):
        around = f"{space.uploads}/../{Path(path).relative_to(space.uploads.parent)}" if "space" in path else path
        spelt += [path, quote(path, safe=""), quote(quote(path, safe=""), safe=""), around, quote(around, safe="")]
        spelt += [f"file://{path}", f"/{path}", path.replace("/", "//"), f".{path}", f"{path}\0.csv"]
    routes = (
        "/gradio_api/file=",
        "/gradio_api/file/",
        "/file=",
        "/static/",
        "/assets/",
        "/svelte/",
        "/gradio_api/proxy=",
    )
    for guest in (her, bob):
        for route in routes:
            for path in spelt:
                answer = guest.get(route + quote(path, safe="/%:"))
                assert answer.status_code != 200, route + path
                assert CANARY not in answer.text
                assert OWNER not in answer.text


def test_other_addresses_tell_nothing(ada: Ada, bob: Guest) -> None:
    """The page itself, what describes it and what watches it have nothing of Ada's in them."""
    own = f"run={ada.finished.id}&file={ada.file}&step=compare"
    paths = [
        f"/?{own}",
        "/config",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/monitoring",
        "/monitoring/summary",
    ]
    paths += ["/gradio_api/runs", "/gradio_api/run-history/records", "/gradio_api/deep_link?session_hash=x", "/runs"]
    for path in paths:
        text = bob.get(path).text
        assert CANARY not in text, path
        assert OWNER not in text, path


def _cookie(payload: Any, secret: str) -> str:
    """A session as Starlette signs it with *secret*."""
    key = hashlib.sha256(f"{secret}-v4".encode()).hexdigest()
    return TimestampSigner(key).sign(base64.b64encode(json.dumps(payload).encode())).decode()


def _session(name: Any = "ada", account: Any = "id-of-ada", lasts: float = 3600) -> dict[str, Any]:
    about = {"preferred_username": name, "sub": account}
    return {"oauth_info": {"access_token": ADA, "expires_at": time.time() + lasts, "userinfo": about}}


def test_a_forged_session_is_none(space: Space, ada: Ada, her: Guest, bob: Guest) -> None:
    """Signed with Gradio's own constant, with nothing, or with another's signature, a session names nobody."""
    good = _cookie(_session(), SECRET)
    assert CANARY in Guest(space, good).ask("_show", ada.file), "the secret makes a session"
    payload, stamp, signature = her.cookie.rsplit(".", 2)
    theirs = bob.cookie.rsplit(".", 2)
    plain = base64.b64encode(json.dumps(_session()).encode()).decode()
    none = base64.b64encode(b'{"alg":"none","typ":"JWT"}').decode()
    forged = [_cookie(_session(), ""), _cookie(_session(), "the client"), plain, f"{plain}..", f"{none}.{plain}."]
    forged += [f"{payload}.{theirs[1]}.{theirs[2]}", f"{plain}.{stamp}.{signature}", f"{payload}.{stamp}.", "x" * 3000]
    for cookie in forged:
        assert SIGN_IN in Guest(space, cookie).ask("_show", ada.file), cookie


def test_a_session_without_a_proper_name_is_none(space: Space, ada: Ada) -> None:
    """Names and accounts that are paths, and an expired session, are nobody's even where the signature is right."""
    names: list[Any] = ["../visitors/id-of-ada", "ada/", "id-of-ada/../id-of-ada", "", ".", "..", "ada\n"]
    names += [None, ["ada"], {"ada": 1}, 7]
    sessions: list[Any] = [session for name in names for session in (_session(name), _session(account=name))]
    sessions += [_session(lasts=-1), {"oauth_info": []}, {"oauth_info": {"userinfo": "ada"}}, []]
    for session in sessions[:-1]:
        assert SIGN_IN in Guest(space, _cookie(session, SECRET)).ask("_show", ada.file), session


def test_a_callback_that_nobody_asked_for_signs_nobody_in(space: Space, ada: Ada, nobody: Guest) -> None:
    """A code that was given to another browser is of no use: the state is not in this one's session."""
    space.hub.signing_in = "ada"
    start = nobody.get("/login/huggingface")
    back = space.client.get(start.headers["location"]).headers["location"].partition(".hf.space")[2]
    answer = nobody.get(back)
    assert answer.headers["location"].startswith("/login/huggingface")
    assert "oauth_info" not in str(
        base64.b64decode(answer.headers.get("set-cookie", "").partition("=")[2][:400] + "==")
    )


def test_a_page_of_another_site_is_refused(space: Space, ada: Ada, her: Guest) -> None:
    """Ada's own cookie, sent along by a page of somebody else's, gives nothing and does nothing."""
    foreign = {"origin": "https://evil.example"}
    body = {"data": [ada.file], "fn_index": space.ids("_show")[0], "session_hash": "any"}
    assert her.post("/gradio_api/queue/join", json=body, headers=foreign).status_code == 403
    assert her.get(f"/download/run/{ada.finished.id}", headers=foreign).status_code == 403
    assert her.get(f"/download/run/{ada.finished.id}", headers={"origin": space.address}).status_code == 200


def test_too_large_an_upload_is_refused(space: Space, bob: Guest) -> None:
    """What is over the limit gets 413, and is not kept."""
    answer = bob.post("/gradio_api/upload", files={"files": ("big.csv", b"a,b,c\n" * 300_000)})
    assert answer.status_code == 413
    assert not [path for path in space.uploads.rglob("big.csv") if path.stat().st_size > 1_100_000]


def test_a_files_name_is_never_a_path(space: Space, bob: Guest, tmp_path: Path) -> None:
    """Names with folders, markup or nulls are kept as words; the files lie under names of the app's own."""
    content = _pairs(tmp_path / "own.csv", "bob").read_bytes()
    own = space.home / "visitors" / "id-of-bob" / "files"
    names = ["../../../evil.csv", "..\\..\\evil.csv", "/etc/evil.csv", "%2e%2e%2fevil.csv", f"{MARKUP}.csv", "..csv"]
    names += ["evil\0.csv", "evil.csv/../../x.csv", f"{'e' * 300}.csv", "CON.csv", "-rf.csv", "~root.csv"]
    outside = _digest(space.home / "visitors" / "id-of-ada")
    for name in names:
        sent = bob.post("/gradio_api/upload", files={"files": (name, content)})
        if sent.status_code == 200:
            bob.ask("_take", file_data(sent.json()[0], orig_name=name))
    assert own.is_dir()
    assert {path.name for path in own.rglob("*") if path.is_file()} == {"file.csv", "about.json"}
    assert all(len(path.name) == 16 and not set(path.name) - set("0123456789abcdef") for path in own.iterdir())
    assert not Path("/etc/evil.csv").exists()
    assert _digest(space.home / "visitors" / "id-of-ada") == outside


def test_only_what_was_uploaded_is_kept(space: Space, ada: Ada, bob: Guest) -> None:
    """The page's upload takes no path of the machine and no address, so nothing is read or asked by it."""
    own = space.home / "visitors" / "id-of-bob" / "files"
    before, asked = _digest(own), len(space.hub.asked)
    inside = f"{space.hub.endpoint}/inside.csv"
    paths = [ada.file_path, str(ada.finished.log), "/etc/passwd", f"{space.uploads}/../home/visitors/id-of-ada", inside]
    sent = [file_data(path) for path in paths]
    sent += [file_data(ada.file_path, url=inside), file_data("x.csv", url=inside), file_data(f"file://{ada.file_path}")]
    for one in sent:
        assert CANARY not in bob.ask("_take", one)
    assert _digest(own) == before
    assert space.hub.asked[asked:] == []


def test_markup_in_a_file_is_text_on_the_page(bob: Guest, tmp_path: Path) -> None:
    """Cells and names with tags reach the page escaped."""
    upload = bob.upload("tags.csv", _pairs(tmp_path / "tags.csv", MARKUP).read_bytes())
    kept = bob.ask("_take", upload)
    file = json.loads(kept[kept.rindex("data: ") + len("data: ") :])["output"]["data"][0]
    shown = bob.ask("_show", file)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&lt;img" in shown
    assert "<script" not in shown
    assert "<img" not in shown


def _start(space: Space, guest: Guest, model: str, file: str = "demo:tone") -> str:
    endpoint = next(one for one in space.endpoints() if one["name"] == "_start")
    given = {"file": file, "model": model}
    values = [given.get(part["props"].get("elem_id"), part["props"].get("value")) for part in endpoint["inputs"]]
    return guest.call([(endpoint["id"], values)])[0]


def test_a_base_model_is_a_name_on_the_hub(space: Space, ada: Ada, bob: Guest) -> None:
    """Addresses, folders and revisions are refused with a sentence, and nothing is asked or made."""
    asked = len(space.hub.asked)
    models = [str(ada.finished.adapter), str(ada.shelf), "http://127.0.0.1/x", "https://a/b", "file:///etc", "hf://a/b"]
    for model in [*models, "a/b@main/../../c", "../ada", "a/..", "home/visitors", "//a/b", "a/b/c", "a/b?x", "a"]:
        told = _start(space, bob, model)
        assert "is no base model: write demo, smollm2, or a name on the Hub as owner/name." in told, model
    assert space.hub.asked[asked:] == []
    assert not (space.home / "visitors" / "id-of-bob" / "runs").exists()


def test_a_visitor_keeps_so_many_runs(space: Space, bob: Guest, tmp_path: Path) -> None:
    """One more than the limit is refused with a sentence that says it."""
    shelf = space.home / "visitors" / "id-of-bob"
    pairs = read_preferences(_pairs(tmp_path / "pairs.csv", "bob"))
    for _ in range(3):
        Run.create(pairs, Recipe.for_model(), shelf=shelf).set_state(State("stopped"))
    assert NOT_ONE_MORE in _start(space, bob, "demo")
    assert len(list((shelf / "runs").iterdir())) == 3


def test_a_private_dataset_is_asked_for_with_nobodys_token(space: Space, her: Guest, bob: Guest) -> None:
    """Bob does not read Ada's dataset by the Space, and no token goes out to look."""
    sent = len(space.hub.authorizations)
    for guest in (bob, her):
        assert CANARY not in guest.ask("_show", "hub:ada/secret")
    assert space.hub.authorizations[sent:] == []


def test_the_owners_token_goes_nowhere(space: Space) -> None:
    """After all of this, the Hub has not seen it, nor has the log."""
    assert not [sent for sent in space.hub.authorizations if OWNER in sent]
    log = space.log.read_text(encoding="utf-8", errors="replace")
    assert OWNER not in log
    assert ADA not in log
