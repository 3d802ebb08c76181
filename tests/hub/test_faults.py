"""Whatever befalls a request of a publish, it is published once, or not at all and told; never half, never twice."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dpo_hub import Run
from dpo_hub.errors import PublishError
from dpo_hub.hub.account import client
from dpo_hub.hub.publish import publish

from .conftest import ADA, Tiny
from .loopback import Fault, Hub, serving

KINDS = ("reset", "429", "500", "lost", "truncated", "slow")
AT_ONCE = 12
REPO, DATA = "ada/tone", "ada/tone-preferences"


def send(run: Run, endpoint: str) -> None:
    publish(run, REPO, api=client(ADA, endpoint=endpoint), with_data=True, compare=False)


@pytest.fixture(scope="module")
def requests(tiny: Tiny) -> list[str]:
    """What a publish that nothing befalls asks for, and leaves there."""
    with serving(Hub({ADA: "ada"})) as hub:
        send(tiny.run, hub.endpoint)
        return list(hub.asked)


def left(hub: Hub) -> dict[str, list[int]]:
    """How many files each commit has, by repository, without the one that each begins with."""
    there = hub.repos | hub.datasets
    return {name: [len(commit.files) - 1 for commit in repo.commits[1:]] for name, repo in there.items()}


WHOLE = {REPO: [9], DATA: [3]}


def require_all_or_nothing(hub: Hub) -> None:
    assert {name: commits for name, commits in left(hub).items() if commits not in ([], WHOLE[name])} == {}


def at_each(requests: list[str], see: Callable[[int], None]) -> None:
    """See what happens at each request, several at a time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(see, at) for at in range(len(requests))]:
            done.result()


QUICK = "lost"
"""The kind whose every request is tried in each run of the tests: the change is made, and nobody hears of it."""


@pytest.mark.parametrize(
    "kind", [kind if kind == QUICK else pytest.param(kind, marks=pytest.mark.full) for kind in KINDS]
)
def test_a_fault_at_each_request(tiny: Tiny, requests: list[str], kind: str) -> None:
    """Nearly all are survived unnoticed; where one is told, nothing is half there, and the next try mends it."""
    told: list[str] = []

    def see(at: int) -> None:
        with serving(Hub({ADA: "ada"}, fault=Fault(at, kind))) as hub:
            try:
                send(tiny.run, hub.endpoint)
            except PublishError as error:
                told.append(str(error))
                require_all_or_nothing(hub)
                send(tiny.run, hub.endpoint)
            assert left(hub) == WHOLE
            assert hub.unknown == []

    at_each(requests, see)
    assert [message for message in told if "it is not known" not in message or ADA in message] == []
    assert len(told) <= sum("whoami" in asked for asked in requests)


def publish_elsewhere(folder: Path, endpoint: str) -> None:
    """The whole life of a process that publishes; it prints nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    send(Run(folder), endpoint)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["reset", "lost"])
def test_a_kill_at_each_request(tiny: Tiny, requests: list[str], kind: str) -> None:
    """A process that is killed when a request arrives, or before its answer does, leaves nothing half done."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])

    def see(at: int) -> None:
        with serving(Hub({ADA: "ada"})) as hub:
            process, killed = processes.Process(target=publish_elsewhere, args=(tiny.run.path, hub.endpoint)), []
            started = threading.Event()

            def kill() -> None:
                started.wait()
                killed.append(at)  # before the process is gone, or whoever waits for that may look too early
                process.kill()

            hub.fault = Fault(at, kind, do=kill)
            process.start()
            started.set()
            process.join()
            assert killed == [at]
            assert process.exitcode != 0
            require_all_or_nothing(hub)
            hub.fault = None
            send(tiny.run, hub.endpoint)
            assert left(hub) == WHOLE

    at_each(requests, see)
