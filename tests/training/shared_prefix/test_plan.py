from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dpo_hub.training.shared_prefix.plan import Plan, packed_length, plan_batch

from .models import Pair, collate

TOKENS = st.lists(st.integers(3, 5), max_size=6)  # few tokens, so that rows often begin alike
PAIRS = st.lists(st.tuples(TOKENS, TOKENS.filter(bool), TOKENS.filter(bool)), min_size=1, max_size=5)


def rows_of(batch: dict[str, Tensor], *, last: bool) -> list[list[int]]:
    """The rows' tokens, with or without the last one, though never none."""
    sizes = batch["attention_mask"].sum(1).tolist()
    return [
        row[: size if last else max(size - 1, 1)] for row, size in zip(batch["input_ids"].tolist(), sizes, strict=True)
    ]


def test_a_pair_shares_its_prompt() -> None:
    """Prompt, rest of one, rest of the other; last tokens are targets only."""
    batch = collate([([7, 8, 9], [4, 5, 6], [4, 3])])
    plan = plan_batch(**batch)
    packed = batch["input_ids"].flatten()[plan.source].tolist()
    assert packed == [7, 8, 9, 4, 5]  # the rejected row is 7 8 9 4 | 3 and needs nothing of its own
    assert plan.positions.tolist() == [0, 1, 2, 3, 4]
    assert plan.lengths == ((4, 4), (1, 5))
    scored = list(zip(plan.scored.tolist(), plan.targets.tolist(), strict=True))
    assert scored == [(2, 4), (3, 3), (3, 5), (4, 6)]  # both rows want 4 after the prompt: scored once
    assert plan.spread.tolist() == [0, 2, 3, 0, 1]


def check(plan: Plan, batch: dict[str, Tensor], *, last: bool) -> None:
    rows = rows_of(batch, last=last)
    packed = batch["input_ids"].flatten()[plan.source]
    prefixes = {tuple(row[: end + 1]) for row in rows for end in range(len(row))}
    assert len(packed) == len(prefixes), "each distinct beginning is there exactly once"
    assert packed[plan.places].tolist() == [token for row in rows for token in row]
    assert plan.positions[plan.places].tolist() == [place for row in rows for place in range(len(row))]

    start = 0
    for (queries, keys), own in zip(plan.lengths, plan.keys.split([keys for _, keys in plan.lengths]), strict=True):
        assert packed[own].tolist() in rows
        assert own[-queries:].tolist() == list(range(start, start + queries)), "the queries are the last of the keys"
        assert plan.positions[own].tolist() == list(range(keys))
        start += queries
    assert start == len(packed)
    queries, keys = (offsets.diff().tolist() for offsets in plan.offsets)
    assert tuple(zip(queries, keys, strict=True)) == plan.lengths

    row, column = (batch["labels"][:, 1:] != -100).nonzero(as_tuple=True)
    assert plan.targets[plan.spread].tolist() == batch["input_ids"][row, column + 1].tolist()
    assert packed[plan.scored][plan.spread].tolist() == batch["input_ids"][row, column].tolist()
    assert plan.positions[plan.scored][plan.spread].tolist() == column.tolist()
    assert len({*zip(plan.scored.tolist(), plan.targets.tolist(), strict=True)}) == len(plan.scored)


@given(PAIRS, st.booleans(), st.sampled_from([None, 5]))
def test_any_batch_is_laid_out_whole_and_without_repeats(pairs: list[Pair], last: bool, max_length: int | None) -> None:
    """Each row's tokens, positions and targets are found again, and no beginning that rows share is there twice."""
    batch = collate(pairs, max_length)
    check(plan_batch(**batch, keep_last=last), batch, last=last)


@given(PAIRS)
def test_the_packed_length_is_forecast(pairs: list[Pair]) -> None:
    """How long the packed row will be is known from the tokens alone."""
    batch = collate(pairs)
    assert packed_length(rows_of(batch, last=True)) == len(plan_batch(**batch, keep_last=True).source)


def test_rows_of_one_token_stay() -> None:
    """A batch in which nothing can be predicted is still a batch."""
    ids = torch.tensor([[5], [6]])
    plan = plan_batch(ids, torch.ones_like(ids), torch.full_like(ids, -100))
    assert plan.lengths == ((1, 1), (1, 1))
    assert len(plan.scored) == 0
