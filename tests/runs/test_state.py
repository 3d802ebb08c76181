from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import psutil

from dpo_hub.runs.state import HEARTBEAT_TIMEOUT, Process, State


def test_a_process_is_alive_until_it_ends() -> None:
    """Also as a zombie, which nobody has collected yet, it is gone."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    named = Process.of(child.pid)
    assert named.alive()
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    assert not named.alive()
    child.wait()
    assert not named.alive()


def test_a_number_used_again_is_another_process() -> None:
    """A later process with the number of an earlier one is not taken for it."""
    assert Process.of().alive()
    assert not replace(Process.of(), started=Process.of().started - 5).alive()


def test_on_another_machine_only_the_heartbeat_tells() -> None:
    """The numbers of another machine's processes mean nothing here."""
    elsewhere = replace(Process.of(), host="elsewhere")
    assert elsewhere.alive(silence=HEARTBEAT_TIMEOUT - 1)
    assert not elsewhere.alive(silence=HEARTBEAT_TIMEOUT + 1)


def test_a_run_is_in_hand_as_long_as_worker_or_keeper_lives() -> None:
    """Either of them sees to it."""
    gone = replace(Process.of(), started=0.0)
    assert State("running", worker=gone, keeper=Process.of()).has_process()
    assert State("running", worker=Process.of(), keeper=gone).has_process()
    assert not State("running", worker=gone, keeper=gone).has_process()
    assert not State("finished").has_process()
