from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from dpo_hub.runs.base_model import EMBEDDED
from dpo_hub.training.policy import load_base
from dpo_hub.training.reference import fingerprint, reference_log_probs

PAIRS: list[Any] = [{"prompt_ids": [n % 3, 7], "chosen_ids": [n, 1], "rejected_ids": [n + 1, 1, 2]} for n in range(10)]


class Measured:
    """Measures a pair by its tokens, and counts."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, pairs: list[Any]) -> torch.Tensor:
        self.batches.append(len(pairs))
        return torch.tensor([[self.of(pair, "chosen_ids"), self.of(pair, "rejected_ids")] for pair in pairs])

    @staticmethod
    def of(pair: Any, part: str) -> float:
        return -float(sum((place + 1) * token for place, token in enumerate([*pair["prompt_ids"], *pair[part]])))

    def expected(self, pairs: list[Any]) -> list[list[float]]:
        return [[self.of(pair, "chosen_ids"), self.of(pair, "rejected_ids")] for pair in pairs]


def ask(pairs: list[Any], measure: Any, folder: Path, key: Any = ("base", "1024")) -> list[list[float]]:
    found: list[list[float]] = reference_log_probs(
        Dataset.from_list(pairs), measure, key=key, folder=folder, batch_size=4
    ).tolist()
    return found


def test_pairs_are_measured_once(tmp_path: Path) -> None:
    """A second run reads what the first measured, in whatever order and with whatever repeats it has the pairs."""
    measure = Measured()
    assert ask(PAIRS, measure, tmp_path) == measure.expected(PAIRS)
    assert measure.batches == [4, 4, 2]
    shuffled = [*PAIRS[::-1], PAIRS[3]]
    assert ask(shuffled, measure, tmp_path) == measure.expected(shuffled)
    assert measure.batches == [4, 4, 2], "nothing is measured again"


def test_pairs_are_measured_prompt_by_prompt(tmp_path: Path) -> None:
    """In an order of their own, so that no seed or order of a file shows in the last digits."""
    seen: list[list[int]] = []

    def measure(pairs: list[Any]) -> torch.Tensor:
        seen.extend(list(pair["prompt_ids"]) for pair in pairs)
        return torch.zeros(len(pairs), 2)

    ask(PAIRS, measure, tmp_path / "one")
    first, seen = seen, []
    ask(PAIRS[::-1], measure, tmp_path / "other")
    assert first == seen == sorted(seen)


@pytest.mark.parametrize("key", [("another base", "1024"), ("base", "512")], ids=str)
def test_another_model_or_length_is_measured_anew(tmp_path: Path, key: Any) -> None:
    """Figures are kept for what they depend on."""
    measure = Measured()
    ask(PAIRS, measure, tmp_path)
    ask(PAIRS, measure, tmp_path, key)
    assert len(measure.batches) == 6


def test_other_pairs_are_measured_anew(tmp_path: Path) -> None:
    """One token more or in another part makes another set."""
    measure = Measured()
    ask(PAIRS, measure, tmp_path)
    moved = [*PAIRS[:-1], {"prompt_ids": [0, 7], "chosen_ids": [9, 1, 10], "rejected_ids": [1, 2]}]
    assert ask(moved, measure, tmp_path) == measure.expected(moved)
    assert len(measure.batches) == 6


@pytest.mark.parametrize("harm", [lambda whole: whole[:-5], lambda _: b"", lambda _: b"not numbers"])
def test_a_broken_file_is_measured_anew(tmp_path: Path, harm: Any) -> None:
    """What a crash or a full disk left is not believed, and is put right."""
    measure = Measured()
    ask(PAIRS, measure, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(harm(file.read_bytes()))
    assert ask(PAIRS, measure, tmp_path) == measure.expected(PAIRS)
    assert len(measure.batches) == 6
    assert np.load(file).shape == (10, 2)


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The figures are there all the same, and one line says that they were not kept."""
    (tmp_path / "file").write_text("in the way")
    measure = Measured()
    assert ask(PAIRS, measure, tmp_path / "file") == measure.expected(PAIRS)
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "another run will measure the base model again" in record.getMessage()


def test_a_model_is_known_by_every_weight() -> None:
    """The same files give the same name, and one changed weight or setting another."""
    first, _ = load_base("demo")
    second, _ = load_base(str(EMBEDDED))
    assert fingerprint(first) == fingerprint(second)
    with torch.no_grad():
        list(second.parameters())[7].view(-1)[11] += 1e-6
    assert fingerprint(first) != fingerprint(second)
    first.config.rms_norm_eps = 1e-5
    assert fingerprint(first) != fingerprint(load_base("demo")[0])
