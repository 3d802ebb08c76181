from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.runs.keeper import command, how_it_died, out_of_memory_kills, visible_devices


@pytest.mark.parametrize(
    ("code", "for_memory", "told"),
    [
        (-9, False, "was killed (SIGKILL)"),
        (-9, True, "ran out of memory"),
        (-11, False, "a fault in a library (SIGSEGV). The last line of its log: loading"),
        (-1, False, "a signal (SIGHUP)"),
        (3, False, "exit code 3. The last line of its log: loading"),
    ],
)
def test_how_a_worker_died_is_told(code: int, for_memory: bool, told: str) -> None:
    """The sentence names the signal and, where the system counts one, the want of memory."""
    assert told in how_it_died(code, for_memory=for_memory, last="loading")


def test_the_systems_kills_are_counted(tmp_path: Path) -> None:
    """The machine's and a container's are added up; what is not there counts nothing."""
    machine, container = tmp_path / "vmstat", tmp_path / "memory.events"
    machine.write_text("pgfault 12\noom_kill 3\n")
    container.write_text("oom 7\noom_kill 2\noom_group_kill 1\n")
    assert out_of_memory_kills((machine, container)) == 5
    assert out_of_memory_kills((machine, tmp_path / "none")) == 3
    assert out_of_memory_kills(()) == 0


def test_one_device_takes_a_plain_process_and_several_take_accelerate(
    few_pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as can share the recipe's 16 pairs evenly; so do settings of accelerate's own, whatever is visible."""
    run = Run.create(read_preferences(few_pairs), Recipe.for_model())
    worker = ["-m", "dpo_hub.jobs.worker", str(run.path)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert command(run) == [sys.executable, *worker]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    launched = command(run)
    assert launched[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    assert "--num_processes=2" in launched
    assert launched[-3:] == worker
    (run.path / "accelerate.yaml").write_text("num_processes: 2\n")
    assert command(run)[3:5] == ["--config_file", str(run.path / "accelerate.yaml")]


def test_without_devices_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where the driver's tool is missing nor where devices are hidden."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_devices() == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_devices() == 0
