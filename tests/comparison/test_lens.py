from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dpo_hub.comparison.lens import Lens
from dpo_hub.errors import ModelError, RunError
from dpo_hub.preferences import read_preferences
from dpo_hub.preferences.replies import Question
from dpo_hub.preferences.table import Unreadable
from dpo_hub.recipe import TRL, Recipe
from dpo_hub.runs.run import Run
from dpo_hub.training.measuring import evaluate, precompute_reference
from dpo_hub.training.trainer import add_head, prepare
from tests.training.test_trainer import load_adapter, reply_logps

ODD = "Schön 👩‍🔬 — e\u0301! \u200b ok  \n\n<b>ﬁn</b> 𝔘\t日本"


@pytest.fixture(scope="module")
def lens(trained_run: Run) -> Lens:
    return Lens.open(trained_run)


@pytest.mark.parametrize("cut", [False, True])
def test_the_total_is_the_reward_that_trl_logs(lens: Lens, trained_run: Run, tmp_path: Path, cut: bool) -> None:
    """For a pair by itself, TRL's own trainer logs the rewards that the lens reads, also where replies are cut off."""
    train, pair = trained_run.pairs("train")[:1], trained_run.pairs("held_out")[0]
    asked = lens.tokenizer.apply_chat_template(list(pair.prompt), add_generation_prompt=True, return_dict=False)
    recipe = replace(trained_run.recipe, max_length=len(asked) + 4 if cut else 1024)
    trainer = prepare(recipe, train, [pair], tmp_path)
    trainer.model.load_adapter(str(trained_run.adapter), "default")
    logged = evaluate(trainer)
    readings = replace(lens, recipe=recipe).rewards(pair.prompt, [pair.chosen, pair.rejected])
    rewards = [reading.reward for reading in readings]
    assert rewards == pytest.approx([logged["chosen_reward"], logged["rejected_reward"]], abs=1e-4)
    assert max(map(abs, rewards)) > 0.01, "nothing was learnt, so the comparison would be empty"
    assert {reading.cut for reading in readings} == {cut}


def test_each_token_has_its_own_part(lens: Lens, trained_run: Run) -> None:
    """A token's reward is β times the difference of its two log-probabilities, and their sum is the reply's."""
    pair, model = trained_run.pairs("held_out")[0], load_adapter(trained_run)
    policy = reply_logps(model, pair.prompt, pair.chosen)
    with model.disable_adapter():
        reference = reply_logps(model, pair.prompt, pair.chosen)
    (reading,) = lens.rewards(pair.prompt, [pair.chosen])
    assert reading.rewards == pytest.approx(
        [0.3 * (one - other) for one, other in zip(policy, reference, strict=True)], abs=1e-4
    )
    assert len(reading.tokens) == len(reading.rewards)
    assert reading.reward == pytest.approx(sum(reading.rewards))
    assert reading.tokens[-1] == "<|end|>"


def test_a_pairs_margin_is_what_training_kept_of_it(lens: Lens, trained_run: Run, tmp_path: Path) -> None:
    """One for each held-out pair, in their order, whatever the batches; with the reference unknown there are none."""
    held_out = trained_run.pairs("held_out")
    trainer = prepare(trained_run.recipe, trained_run.pairs("train")[:1], held_out, tmp_path)
    trainer.model.load_adapter(str(trained_run.adapter), "default")
    evaluate(trainer)
    assert trainer.margins == ()
    precompute_reference(trainer, trained_run.recipe)
    logged = evaluate(trainer)
    read = [lens.rewards(pair.prompt, [pair.chosen, pair.rejected]) for pair in held_out]
    assert trainer.margins == pytest.approx([chosen.reward - rejected.reward for chosen, rejected in read], abs=1e-4)
    assert logged["margin"] == pytest.approx(sum(trainer.margins) / len(held_out), abs=1e-4)


@pytest.mark.parametrize("reply", ["Yes.", ODD, "", " x ", "👩‍🔬" * 3])
def test_the_tokens_joined_are_the_reply(lens: Lens, reply: str) -> None:
    """Whatever characters a reply has, its pieces give its text, and the end token after it."""
    (reading,) = lens.rewards("Hi?", [reply])
    assert "".join(reading.tokens) == f"{reply}<|end|>"


def test_without_an_adapter_nothing_has_a_reward(trained_run: Run) -> None:
    """With the adapter's weights at zero, policy and reference are the same."""
    lens = Lens.open(trained_run)
    for name, weights in lens.model.named_parameters():
        if "lora_B" in name:
            weights.data.zero_()
    for reading in lens.rewards("Where is my parcel?", ["On its way!", ODD]):
        assert set(reading.rewards) == {0.0}


def test_the_best_comes_first(lens: Lens, trained_run: Run) -> None:
    """Candidates are ranked by what they are worth, each with its reading."""
    pair = trained_run.pairs("train")[0]
    ranked = lens.rank(pair.prompt, [pair.rejected, pair.chosen])
    assert [candidate for candidate, _ in ranked] == [pair.chosen, pair.rejected]
    assert ranked[0][1].reward > 0 > ranked[1][1].reward
    assert lens.rank(pair.prompt, []) == []


def test_company_makes_no_difference(lens: Lens, trained_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many questions at a time, in windows and batches of any size, are read as one by one, with either engine."""
    pairs = trained_run.pairs("train")[:7]
    questions = [Question(pair.prompt, [pair.chosen, pair.rejected]) for pair in pairs]
    alone = [lens.rewards(question.prompt, question.replies) for question in questions]
    slow = replace(Lens.open(trained_run), recipe=replace(lens.recipe, engine=TRL))
    add_head(slow.model)
    monkeypatch.setattr("dpo_hub.comparison.lens.WINDOW", 3)
    for batch_tokens in (1, 200, 8192):
        monkeypatch.setattr("dpo_hub.comparison.lens.BATCH_TOKENS", batch_tokens)
        for reader in (lens, slow):
            together = list(reader.score(iter(questions)))
            for one, other in zip(alone, together, strict=True):
                assert not isinstance(other, Unreadable)
                for a, b in zip(one, other, strict=True):
                    assert a.tokens == b.tokens
                    assert a.rewards == pytest.approx(b.rewards, abs=1e-4)


def test_what_cannot_be_read_is_told_in_its_place(lens: Lens) -> None:
    """A prompt that fills the length and messages that the template refuses do not stop the others."""
    short = replace(lens, recipe=replace(lens.recipe, max_length=8))
    fine = Question([{"role": "user", "content": "Hi?"}], [[{"role": "assistant", "content": "Yes."}]])
    long = Question([{"role": "user", "content": "Hi? " * 20}], fine.replies)
    refused = Question([{"role": None, "content": "Hi?"}], fine.replies)
    first, second, third, last = short.score([long, refused, Unreadable("no reply"), fine])
    assert first == "a prompt that fills max_length"
    assert isinstance(second, Unreadable)
    assert "template refuses" in second
    assert third == "no reply"
    assert not isinstance(last, Unreadable)
    with pytest.raises(ModelError, match="fills max_length"):
        short.rewards("Hi? " * 20, ["Yes."])


def test_a_run_that_has_not_finished_is_refused(few_pairs: Path) -> None:
    """There is no adapter to look through before training ends."""
    with pytest.raises(RunError, match="not finished"):
        Lens.open(Run.create(read_preferences(few_pairs), Recipe.for_model()))
