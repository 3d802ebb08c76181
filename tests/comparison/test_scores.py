from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from dpo_hub.comparison.lens import Lens
from dpo_hub.comparison.scores import Scores, score
from dpo_hub.errors import PreferencesError
from dpo_hub.preferences.replies import ReplyFile
from dpo_hub.runs.run import Run

PROMPT = "Where is my parcel?"


@pytest.fixture(scope="module")
def lens(trained_run: Run) -> Lens:
    return Lens.open(trained_run)


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.read_table(path).to_pylist()
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def scored(lens: Lens, path: Path, out: str, mapping: dict[str, list[str]] | None = None) -> Scores:
    scores = score(lens, ReplyFile.open(path, mapping))
    scores.write(path.with_name(out))
    return scores


def test_rows_and_columns_stay_as_they_are(lens: Lens, tmp_path: Path) -> None:
    """Every row is there, in order, with all it had; what cannot be scored has an empty reward and is counted."""
    path = tmp_path / "replies.csv"
    rows = [f"7;{PROMPT};On its way!;-0.5", "8;;No idea.;=1+1", f"9;{PROMPT};;x", "10;Is it blue?;Yes.;ü"]
    path.write_text("\n".join(["id;question;reply;note", *rows]), encoding="cp1252")
    scores = scored(lens, path, "out.csv")
    found = rows_of(tmp_path / "out.csv")
    assert list(found[0]) == ["id", "question", "reply", "note", "reward"]
    assert [row["id"] for row in found] == ["7", "8", "9", "10"]
    assert [row["note"] for row in found] == ["-0.5", "'=1+1", "x", "ü"]
    assert [row["reward"] == "" for row in found] == [False, True, True, False]
    (reading,) = lens.rewards(PROMPT, ["On its way!"])
    assert float(found[0]["reward"]) == pytest.approx(reading.reward, abs=1e-5)
    assert scores.left_out == {"no prompt": [3], "no reply": [4]}
    assert scored(lens, tmp_path / "out.csv", "twice.csv").added == ["reward_2"]
    twice = rows_of(tmp_path / "twice.csv")
    assert [row["reward"] for row in twice] == [row["reward_2"] for row in twice] == [row["reward"] for row in found]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_rows_of_one_prompt_are_ranked(lens: Lens, tmp_path: Path, kind: str) -> None:
    """Best of n: where a prompt comes again, 1 is the reply with the highest reward, whatever is written."""
    path = tmp_path / "n.jsonl"
    replies = ["On its way!", "Dear Ada, how lovely to hear from you!", "Wait.", "Wait."]
    rows = [{"prompt": PROMPT, "response": reply, "by": {"n": place}} for place, reply in enumerate(replies)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "Blue?", "response": "Yes."}, 5]))
    scores = scored(lens, path, f"out.{kind}")
    found = rows_of(tmp_path / f"out.{kind}")
    rewards = [float(row["reward"]) for row in found[:4]]
    ranks = [int(row["rank"]) for row in found[:4]]
    assert ranks == [1 + sum(other > reward for other in rewards) for reward in rewards]
    assert ranks[2] == ranks[3]
    assert int(found[4]["rank"]) == 1
    assert not found[5].get("reward")
    assert found[1]["by"] == ('{"n": 1}' if kind == "csv" else {"n": 1})
    assert list(scores.left_out.values()) == [[6]]


def test_several_candidates_in_a_row_are_ranked(lens: Lens, tmp_path: Path) -> None:
    """Each column of replies, found by its name or told, gets a reward and a rank of its own."""
    path = tmp_path / "c.jsonl"
    row = {"ask": PROMPT, "response_a": "On its way!", "response_b": "", "response_c": "Wait.", "x": {"y": "No."}}
    path.write_text(json.dumps(row) + '\n{"response_a": "Yes.", "response_b": "No."}')
    scores = scored(lens, path, "named.jsonl", {"prompt": ["ask"]})
    assert scores.left_out == {"no reply": [1], "no prompt": [2]}
    named, _ = rows_of(tmp_path / "named.jsonl")
    assert named["response_b_reward"] is None
    assert {named["response_a_rank"], named["response_c_rank"]} == {1, 2}
    scored(lens, path, "told.jsonl", {"prompt": ["ask"], "reply": ["x.y", "response_a"]})
    told, _ = rows_of(tmp_path / "told.jsonl")
    assert told.keys() == row.keys() | {"x.y_reward", "x.y_rank", "response_a_reward", "response_a_rank"}
    assert told["response_a_reward"] == pytest.approx(named["response_a_reward"], abs=1e-4)  # in other company


def test_whole_chats_and_both_sides_of_pairs_are_scored(lens: Lens, few_pairs: Path, tmp_path: Path) -> None:
    """A column of messages holds prompt and reply in one; a preference file has two replies a row."""
    path = tmp_path / "chats.jsonl"
    chat = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": "On its way!"}]
    path.write_text(json.dumps({"messages": chat}))
    (reading,) = lens.rewards(PROMPT, ["On its way!"])
    assert score(lens, ReplyFile.open(path)).rewards == pytest.approx([reading.reward])
    scores = scored(lens, few_pairs, "pairs.csv")
    assert scores.added == ["chosen_reward", "rejected_reward", "chosen_rank", "rejected_rank"]
    assert scores.count == 80
    better = [float(row["chosen_reward"]) > float(row["rejected_reward"]) for row in rows_of(tmp_path / "pairs.csv")]
    assert sum(better) > 30


def test_refusals(lens: Lens, tmp_path: Path) -> None:
    """What is not known, or cannot be written, is told with what to do."""
    path = tmp_path / "a.csv"
    path.write_text("prompt,colour\nHi?,blue\n")
    with pytest.raises(PreferencesError, match=r"a\.csv: Its columns, .* do not say which is the reply.*--map"):
        ReplyFile.open(path)
    with pytest.raises(PreferencesError, match="names 'chosen'"):
        ReplyFile.open(path, {"chosen": ["colour"]})
    with pytest.raises(PreferencesError, match="names the column 'nope'"):
        ReplyFile.open(path, {"reply": ["nope"]})
    with pytest.raises(PreferencesError, match="no such file"):
        ReplyFile.open(tmp_path / "none.csv")
    scores = score(lens, ReplyFile.open(path, {"reply": ["colour"]}))
    with pytest.raises(PreferencesError, match="written over"):
        scores.write(path)
    with pytest.raises(PreferencesError, match=r"Use \.csv"):
        scores.write(tmp_path / "out.xls")
    path.write_text("prompt,reply\n")
    with pytest.raises(PreferencesError, match=r"a\.csv: It has no row"):
        ReplyFile.open(path)
    path.write_text("prompt,reply\nHi?,\n")
    with pytest.raises(PreferencesError, match=r"None of 1 row has .*no reply \(row 2\)"):
        score(lens, ReplyFile.open(path))
