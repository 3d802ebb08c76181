from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from dpo_hub.errors import ModelError
from dpo_hub.training.memory import explaining_out_of_memory, free_bytes, held_bytes, peak_bytes


def test_memory_held_and_its_peak() -> None:
    """What a tensor takes is held while it is there, and the peak stays."""
    cpu = torch.device("cpu")
    before = held_bytes(cpu)
    tensor = torch.ones(2**26)
    with_it = held_bytes(cpu)
    assert with_it - before > 0.9 * tensor.nbytes
    del tensor
    assert held_bytes(cpu) < with_it - 2**27
    assert peak_bytes(cpu) >= with_it
    assert free_bytes(cpu) > 0


def test_freed_memory_is_kept_without_harm() -> None:
    """The C library takes the settings, and memory can still be had and given back."""
    code = (
        "from dpo_hub.training.memory import keep_freed_memory; import torch; print(keep_freed_memory())\n"
        "print(sum(float(torch.ones(n, 2**20).sum()) for n in range(1, 20)) / 2**20)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    worked, total = done.stdout.split()
    assert worked == str(platform.libc_ver()[0] == "glibc")
    assert float(total) == sum(range(1, 20))


def test_full_memory_is_told() -> None:
    """What the CPU's allocator says becomes a sentence; other errors stay what they are."""
    with pytest.raises(ModelError, match="memory is full"), explaining_out_of_memory("Ask for less."):
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shapes"), explaining_out_of_memory("Ask for less."):
        torch.ones(2, 3) @ torch.ones(2, 3)
