"""Runs on Hugging Face Jobs: real jobs, as processes that know only a Hub on this machine."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import HfApi

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.demo import FILES
from dpo_hub.errors import PublishError, RecipeError, RunError
from dpo_hub.hub import calls
from dpo_hub.hub.calls import UnreachableError
from dpo_hub.jobs import job
from dpo_hub.jobs.mirror import copy_whole, get_mirror, push
from dpo_hub.jobs.remote import Remote
from dpo_hub.jobs.submit import LONGEST, USUAL, parse_duration, resume, submit, time_limit
from dpo_hub.runs.headline import headline_of
from dpo_hub.runs.run import REMOTE
from tests.conftest import PATIENCE, until

from ..hub.conftest import ADA, ADA_READS, BOB
from ..hub.loopback import Fault, Hub, Repo, serving
from ..hub.loopback.jobs import Job

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # the client's own

RECIPE = ("--epochs", "4", "--batch-size", "4", "--checkpoint-steps", "2", "--evaluations", "0")
OFTEN = ("--push-minutes", "0.01")
FLAVOR = ("--flavor", "a10g-small")


@dataclass(frozen=True)
class Here:
    """A machine: its folder of runs, and the command line on it with a token of its own."""

    hub: Hub
    folder: Path
    said: list[str] = field(default_factory=list)

    def environment(self, token: str = ADA) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        own = {"HF_HOME": str(self.folder / "hf"), "DPO_HUB_HOME": str(self.folder / "home"), "COLUMNS": "150"}
        system = {"HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1", "HF_ENDPOINT": self.hub.endpoint}
        return kept | own | system | ({"HF_TOKEN": token} if token else {})

    def __call__(self, *arguments: object, token: str = ADA, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dpo_hub", *map(str, arguments)]
        environment = self.environment(token) | more
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        self.said.append(done.stdout + done.stderr)
        return done

    def submit(self, file: Path, *more: object, **options: str) -> Run:
        before = set(self.runs)
        done = self("submit", file, *FLAVOR, *OFTEN, *more, **options)
        assert done.returncode == 0, done.stderr
        (new,) = set(self.runs) - before
        return new

    @property
    def runs(self) -> list[Run]:
        return [Run(path.parent) for path in (self.folder / "home" / "runs").glob("[!.]*/recipe.json")]

    def files_with(self, secret: str) -> list[Path]:
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return [path for path in files if secret.encode() in path.read_bytes()]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """A Hub that knows Ada and Bob and has jobs."""
    with serving(Hub({ADA: "ada", ADA_READS: "ada", BOB: "bob"}, frozenset({ADA_READS}))) as hub:
        yield hub
        assert hub.unknown == []


@pytest.fixture(scope="module")
def here(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Here:
    return Here(hub, tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="module")
def file(here: Here) -> Path:
    path = here.folder / "few.csv"
    lines = (FILES / "tone.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:41]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def submitted(here: Here, file: Path) -> Run:
    """A run whose job goes on while others train."""
    return here.submit(file, "--timeout", "2h", "--budget", "0.5", *RECIPE)


@pytest.fixture(scope="module")
def peaceful(here: Here, file: Path, submitted: Run) -> Run:
    """The same run, trained here."""
    before = set(here.runs)
    done = here("train", file, *RECIPE)
    assert done.returncode == 0, done.stderr
    (run,) = set(here.runs) - before
    return run


@pytest.fixture(scope="module")
def finished(here: Here, submitted: Run, peaceful: Run) -> Run:
    """A run that was submitted, and whose job has ended by itself."""
    until(lambda: job_of(here, submitted).over)
    return submitted


def job_of(here: Here, run: Run) -> Job:
    """The run's newest job."""
    found: Job = here.hub.jobs[run.remote["jobs"][-1]["id"]]
    return found


def mirrored(here: Here, run: Run) -> dict[str, bytes]:
    files: dict[str, bytes] = here.hub.datasets[f"ada/{run.id}"].head.files
    return files


def step_pushed(here: Here, run: Run) -> int:
    names = (path.split("/")[2] for path in mirrored(here, run) if path.startswith("run/checkpoints/"))
    return max((int(name.rpartition("-")[2]) for name in names), default=0)


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_one_clear_line(done: subprocess.CompletedProcess[str], told: str) -> None:
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("dpo-hub: ")
    assert told in line


def test_a_submitted_run_is_seen_as_if_it_trained_here(here: Here, finished: Run) -> None:
    """It is listed with its machine, its log is that of its worker, and what there is to do next is said."""
    listed = here("runs").stdout
    assert "a10g-small" in listed
    told = headline_of(finished)
    assert told.short in listed
    assert f"finished: {told.sentence}" in here("logs", finished.id).stdout
    assert f"finished: {told.sentence}" in "\n".join(line for _, line in job_of(here, finished).said)
    assert f"dpo-hub fetch {finished.id}" in here("status", finished.id).stdout
    if not finished.adapter.exists():
        assert_one_clear_line(here("chat", finished.id, "Hello"), "Bring it home first")


def test_a_budget_limits_the_jobs_time(here: Here, finished: Run) -> None:
    """Half a dollar buys half an hour of a machine at a dollar an hour, though two hours were asked for."""
    assert job_of(here, finished).spec["timeoutSeconds"] == pytest.approx(1800, abs=1)
    assert "at most 30 min, $0.50 on a10g-small at $1.00 an hour" in "".join(here.said)


def test_a_job_gives_the_adapter_that_training_here_gives(here: Here, finished: Run, peaceful: Run) -> None:
    """Fetched, it is the same to the last bit, with the same measurements, and can be published."""
    fetched = here("fetch", finished.id)
    assert fetched.returncode == 0, fetched.stderr
    assert digests(finished.adapter) == digests(peaceful.adapter)
    assert finished.evaluation == peaceful.evaluation
    assert finished.metrics == peaceful.metrics
    published = here("publish", finished.id, "ada/tone", "--no-compare")
    assert published.returncode == 0, published.stderr
    assert "adapter_model.safetensors" in here.hub.repos["ada/tone"].head.files


def test_another_machine_fetches_a_run_by_its_repository(hub: Hub, finished: Run, tmp_path: Path) -> None:
    """All that is needed is the name; what arrives are the Hub's own bytes, and it reads as a run of that machine."""
    there = Here(hub, tmp_path)
    fetched = there("fetch", f"ada/{finished.id}")
    assert fetched.returncode == 0, fetched.stderr
    (run,) = there.runs
    assert run.id == finished.id
    assert run.require_finished() == run
    held = hub.datasets[f"ada/{finished.id}"].head.files
    wanted = {path[4:]: hashlib.sha256(data).hexdigest() for path, data in held.items() if path.startswith("run/")}
    assert digests(run.path) == wanted
    assert_one_clear_line(there("fetch", run.id), "was not submitted")


@pytest.mark.full
def test_a_job_that_dies_is_resumed_from_what_was_pushed(here: Here, file: Path, peaceful: Run) -> None:
    """Killed, then stopped, it goes on twice from a checkpoint, and its adapter is that of a run left in peace."""
    run = here.submit(file, *RECIPE, "--timeout", "1h")
    until(lambda: step_pushed(here, run) >= 2)
    assert "running" in here("runs").stdout
    job_of(here, run).kill()
    until(lambda: job_of(here, run).over)
    told = here("status", run.id).stdout
    assert f"Failed after step {int(run.last_metrics['step'])}." in told
    assert "(ERROR: Job failed with exit code: 137)" in told
    pushed = step_pushed(here, run)
    assert f"dpo-hub resume {run.id} goes on from step {pushed}." in told

    assert here("resume", run.id).returncode == 0
    assert "queued" in (run.path / "state.json").read_text()
    until(lambda: step_pushed(here, run) > pushed)
    stopped = here("stop", run.id)
    assert f"{run.id}: Stopped after step" in stopped.stdout
    assert job_of(here, run).stage == "COMPLETED"
    assert run.state.status == "stopped"
    left = step_pushed(here, run)
    assert left == run.last_metrics["step"]

    assert here("resume", run.id).returncode == 0
    assert here("logs", "-f", run.id).stdout.count("going on from step") == 1
    until(lambda: job_of(here, run).over)
    assert here("fetch", run.id).returncode == 0
    assert [line.partition("going on from ")[2] for line in run.log_tail(1000).splitlines() if "going on" in line] == [
        f"step {pushed}",
        f"step {left}",
    ]
    assert digests(run.adapter) == digests(peaceful.adapter)
    assert run.metrics == peaceful.metrics
    assert len(run.remote["jobs"]) == 3


def test_a_job_that_is_told_to_end_leaves_its_last_step(here: Here, file: Path) -> None:
    """At its time limit, say, it pushes a checkpoint of the last step, and why it ended is said."""
    run = here.submit(file, *RECIPE, "--timeout", "1h")
    until(lambda: step_pushed(here, run) >= 2)
    job_of(here, run).end("ERROR", "Job timeout")
    until(lambda: job_of(here, run).over)
    told = here("status", run.id).stdout
    step = step_pushed(here, run)
    assert f"Stopped after step {step}. Its job ended before the run did (ERROR: Job timeout)." in told
    assert f"dpo-hub resume {run.id}" in told


def test_no_token_is_anywhere(here: Here, finished: Run) -> None:
    """Not in a folder, a repository, a job's public part or what anything printed; only in the job's secrets."""
    assert here.files_with(ADA) == []
    for repo in here.hub.datasets.values():
        assert [path for commit in repo.commits for path, data in commit.files.items() if ADA.encode() in data] == []
    for started in here.hub.jobs.values():
        assert started.secrets == {"HF_TOKEN": ADA}
        assert ADA not in json.dumps(started.spec)
        assert ADA not in "".join(line for _, line in started.said)
    assert ADA not in "".join(here.said)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--flavor", "h9000"], "has no machine 'h9000'"),
        ([*FLAVOR, "--timeout", "soon"], "--timeout is 'soon'; write a time"),
        ([*FLAVOR, "--timeout", "1h", "--budget", "0.001"], "Raise --budget"),
        ([*FLAVOR, "--timeout", "1h", "--model", "."], "Push it to the Hub first"),
        ([*FLAVOR, "--timeout", "1h", "--model", "ada/nothing"], "There is no base model ada/nothing"),
        ([*FLAVOR, "--timeout", "1h", "--namespace", "bob"], "ada is neither bob nor a member"),
        ([*FLAVOR, "--timeout", "1h", "--recipe", "few.csv"], "is not the recipe.json of a run"),
        ([*FLAVOR, "--timeout", "1h", "--token", ADA_READS], "may only read"),
    ],
)
def test_what_cannot_be_submitted_is_refused(here: Here, file: Path, more: list[str], told: str) -> None:
    """In one sentence, before anything costs, and nothing of the run stays."""
    runs, repos = set(here.runs), set(here.hub.datasets)
    assert_one_clear_line(here("submit", file, *more), told)
    assert (set(here.runs), set(here.hub.datasets)) == (runs, repos)


def test_a_run_without_a_job_can_be_resumed(here: Here, file: Path) -> None:
    """Where the Hub wants to be paid first, the run waits, within the budget that it has; one that is spent says so."""
    here.hub.without_money.add("ada")
    before = set(here.runs)
    refused = here("submit", file, *FLAVOR, "--timeout", "1h", "--budget", "1", "--recipe", recipe_file(here))
    here.hub.without_money.clear()
    assert_one_clear_line(refused, "wants to be paid")
    (run,) = set(here.runs) - before
    assert (run.state.status, run.recipe.epochs) == ("stopped", 3.5)

    began = time.time() - 3590
    spent = Job("spent", "ada", {"labels": {}}, {}, "", created=began, started=began, ended=time.time(), stage="ERROR")
    here.hub.jobs[spent.id] = spent
    remote = run.remote | {"jobs": [{"id": spent.id, "timeout": 3600, "hourly": 1.0, "seconds": 0}]}
    run.write(REMOTE, json.dumps(remote))
    assert_one_clear_line(here("resume", run.id), "Of the budget of $1.00, $1.00 are spent")
    assert "On a10g-small: $1.00 of $1.00 at most" in here("status", run.id).stdout
    here("resume", run.id, "--budget", "1.25")
    assert job_of(here, run).spec["timeoutSeconds"] == pytest.approx(900, abs=3)
    assert_one_clear_line(here("remove", run.id, "--yes"), "Stop it first")
    job_of(here, run).end("CANCELED")
    until(lambda: job_of(here, run).over)
    del here.hub.jobs[spent.id]
    here("status", run.id)
    assert "ada/" in here("remove", run.id, "--yes").stdout


class Lossy(HfApi):
    """A client that hears nothing of the jobs that it has begin."""

    def run_job(self, **asked: Any) -> Any:
        super().run_job(**asked)
        raise httpx2.ReadError("gone")


def test_a_job_whose_answer_is_lost_is_found(hub: Hub, api: HfApi, few_pairs: Path) -> None:
    """The user is told to resume, not to submit again; whoever looks finds the job, and can end it."""
    run = Run.create(read_preferences(few_pairs), Recipe.for_model(epochs=50))
    lost = Remote(f"ada/{run.id}", "a10g-small", 1.0, 600.0, budget=1.0)
    with pytest.raises(UnreachableError, match=f"Do not submit it again: dpo-hub resume {run.id} goes on"):
        submit(run, lost, Lossy(hub.endpoint, token=ADA))
    assert run.may_have_news
    with pytest.raises(RunError, match="already"):
        resume(run, api)
    assert run.state.status in ("queued", "running")
    (known,) = Remote.of(run).jobs
    assert list(hub.jobs)[-1] == known.id
    assert not Remote.of(run).pending
    hub.jobs[known.id].end("CANCELED")
    until(lambda: hub.jobs[known.id].over)


def test_what_a_job_needs_is_asked_for(here: Here, finished: Run) -> None:
    """The bootstrap's own library and what trains are among the packages that the job installs, each pinned."""
    command = job_of(here, finished).spec["command"]
    asked = [needed for option, needed in itertools.pairwise(command) if option == "--with"]
    assert {"huggingface_hub", "torch", "trl", "peft"} <= {
        needed.partition("==")[0] for needed in asked if "==" in needed
    }


def recipe_file(here: Here) -> Path:
    path = here.folder / "recipe.json"
    path.write_text(Recipe.for_model(epochs=3.5).to_json())
    return path


def test_a_hub_that_is_away_hides_no_run(hub: Hub, few_pairs: Path, tmp_path: Path) -> None:
    """Runs are listed as they stood before, with a note and no error."""
    run = Run.create(read_preferences(few_pairs), Recipe.for_model())
    told = {"repo": f"ada/{run.id}", "flavor": "a10g-small", "hourly": 1.0, "timeout": 3600.0}
    jobs = [{"id": "none", "timeout": 3600, "hourly": 1.0}]
    run.write(REMOTE, json.dumps(told | {"jobs": jobs, "pending": False}))
    listed = Here(hub, tmp_path)("runs", HF_ENDPOINT="http://127.0.0.1:9")
    assert (listed.returncode, run.id in listed.stdout) == (0, True)
    assert f"note: {run.id} is shown as it stood before." in listed.stderr


@pytest.fixture
def queued(hub: Hub, few_pairs: Path) -> Run:
    """A run of this process, with an empty repository to push to."""
    run = Run.create(read_preferences(few_pairs), Recipe.for_model())
    hub.datasets[f"ada/{run.id}"] = Repo(private=True)
    return run


@pytest.fixture
def api(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    return HfApi(hub.endpoint, token=ADA)


def test_a_job_stops_before_its_time_is_up(hub: Hub, api: HfApi, queued: Run) -> None:
    """What it has by then is pushed, and why it stopped."""
    job.supervise(api, f"ada/{queued.id}", queued, every=60, left=0)
    files = hub.datasets[f"ada/{queued.id}"].head.files
    assert json.loads(files["run/state.json"])["status"] == "stopped"
    assert json.loads(files["run/state.json"])["reason"] == "The time of its job was up."


def test_the_last_push_outlasts_a_hub_that_is_away(
    hub: Hub, api: HfApi, queued: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again until it arrives; where the Hub stays away, the job fails instead of losing it silently."""
    monkeypatch.setattr(calls, "WAITS", ())
    monkeypatch.setattr(job, "PUSH_AGAIN", 0.0)
    broken: list[int] = []

    def until_the_third() -> None:
        broken.append(1)
        if len(broken) == 3:
            hub.fault = None

    hub.fault = Fault(len(hub.asked), "reset", onwards=True, do=until_the_third)
    job._push_last(api, f"ada/{queued.id}", queued)
    assert len(broken) == 3
    assert "run/state.json" in hub.datasets[f"ada/{queued.id}"].head.files

    monkeypatch.setattr(job, "PUSH_PATIENCE", -1.0)
    hub.fault = Fault(len(hub.asked), "500", onwards=True)
    with pytest.raises(PublishError, match="answered 500"):
        job._push_last(api, f"ada/{queued.id}", queued)
    hub.fault = None


def test_pushing_mirrors_the_folder(hub: Hub, api: HfApi, queued: Run) -> None:
    """What is gone here goes there, of the checkpoints only the newest travels, and a finished run has none."""
    for step in (9, 10):
        (queued.path / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
        (queued.path / "checkpoints" / f"checkpoint-{step}" / "weights.pt").write_bytes(b"%d" % step)
    queued.write(REMOTE, "{}")
    push(api, queued, get_mirror(api, f"ada/{queued.id}"))
    there = get_mirror(api, f"ada/{queued.id}")
    made = {"recipe.json", "preferences.parquet", "report.json", "state.json"}
    assert there.files == {
        ".gitattributes",
        "run/checkpoints/checkpoint-10/weights.pt",
        *(f"run/{name}" for name in made),
    }
    assert there.step == 10
    queued.end("finished")
    push(api, queued, there)
    assert get_mirror(api, f"ada/{queued.id}").step == 0


def test_a_copied_checkpoint_is_whole(queued: Run, tmp_path: Path) -> None:
    """However quickly checkpoints come and go, a copy has all of one, or is refused."""
    folder, ended, names = queued.path / "checkpoints", threading.Event(), [f"{number}.pt" for number in range(20)]

    def rotate() -> None:
        step = 0
        while not ended.wait(0.002):
            step += 1
            (folder / ".aside").mkdir(parents=True)
            for name in names:
                (folder / ".aside" / name).write_text(str(step))
            (folder / ".aside").rename(folder / f"checkpoint-{step}")
            shutil.rmtree(folder / f"checkpoint-{step - 2}", ignore_errors=True)

    thread = threading.Thread(target=rotate, daemon=True)
    thread.start()
    until(lambda: any(folder.glob("checkpoint-*")))
    copied = 0
    for attempt in range(100):
        with suppress(OSError):
            copy_whole(queued, tmp_path / f"{attempt}")
            (checkpoint,) = (tmp_path / f"{attempt}" / "checkpoints").iterdir()
            copied += 1
            assert {path.name: path.read_text() for path in checkpoint.iterdir()} == dict.fromkeys(
                names, checkpoint.name.rpartition("-")[2]
            )
    ended.set()
    thread.join()
    assert copied


def test_a_time_limit_keeps_to_the_budget() -> None:
    """What is asked for counts, then the budget, then the estimate; never does a job cost more than the budget."""
    assert time_limit(1.0, timeout=7200, budget=0.5) == 1800
    assert time_limit(1.0, timeout=600, budget=0.5) == 600
    assert time_limit(1.0, budget=1000.0) == LONGEST
    assert time_limit(1.0, budget=0.5, estimate=60) == 1800
    assert time_limit(1.0, estimate=3600) > 3600
    assert time_limit(1.0) == USUAL
    assert time_limit(0.0, budget=1.0) == LONGEST


@pytest.mark.parametrize(
    ("written", "seconds"), [("2h", 7200), ("90m", 5400), ("1.5 h", 5400), ("3600", 3600), ("1d", 86400)]
)
def test_times_are_written_as_people_write_them(written: str, seconds: float) -> None:
    """A number and a unit, seconds without one."""
    assert parse_duration(written) == seconds


@pytest.mark.parametrize("written", ["", "h", "-1h", "10s", "1w", "nan"])
def test_what_is_no_time_is_refused(written: str) -> None:
    """With what was written, and how to write it."""
    with pytest.raises(RecipeError, match="--timeout is"):
        parse_duration(written)
