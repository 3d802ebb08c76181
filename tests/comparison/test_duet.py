from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from dpo_hub.comparison.duet import KEPT, Duet, Models
from dpo_hub.comparison.text import Detokenizer
from dpo_hub.demo import FILES
from dpo_hub.errors import RunError
from dpo_hub.preferences import read_preferences
from dpo_hub.preferences.pairs import Messages
from dpo_hub.recipe import Recipe
from dpo_hub.runs.run import Run
from dpo_hub.runs.state import State
from dpo_hub.training.policy import load_base
from dpo_hub.training.train import train

HELLO = [{"role": "user", "content": "Where is my order?"}]
SHORT = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Return a finished run; the tests only read it."""
    home = tmp_path_factory.mktemp("duet")
    pairs = home / "few.csv"
    pairs.write_text("".join((FILES / "tone.csv").read_text().splitlines(keepends=True)[:41]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPO_HUB_HOME", str(home))
        run = Run.create(read_preferences(pairs), Recipe.for_model(epochs=4, sft_weight=0))
        train(run)
        run.set_state(State("finished"))
        yield run


@pytest.fixture(scope="module")
def duet(run: Run) -> Duet:
    return Duet.open(run)


def copy(run: Run, path: Path, *, scale: float = 1.0, **changed: Any) -> Run:
    """Copy *run*, with the effect of its adapter scaled and its recipe changed."""
    shutil.copytree(run.path, path)
    file = path / "adapter" / "adapter_model.safetensors"
    save_file({name: part * (scale if "lora_B" in name else 1) for name, part in load_file(file).items()}, file)
    (path / "recipe.json").write_text(json.dumps(asdict(replace(run.recipe, **changed))))
    return Run(path)


def joined(steps: Iterator[list[str]]) -> list[str]:
    return ["".join(side) for side in zip(*steps, strict=True)]


def one_by_one(duet: Duet, chat: Messages, tokens: int) -> str:
    """The greedy reply that transformers writes to *chat* alone, with the adapter as it is."""
    encoded = duet.tokenizer.apply_chat_template(
        [chat], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    written = duet.model.generate(**encoded, max_new_tokens=tokens, do_sample=False)
    return duet.tokenizer.decode(written[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_before_is_the_base_model_and_after_the_policy(run: Run, duet: Duet) -> None:
    """Both sides answer in the order asked, the same again from the same seed, and the adapter makes a difference."""
    prompts = [pair.prompt for pair in run.pairs("held_out")]
    replies = duet.replies(prompts, temperature=0, max_new_tokens=40)
    assert duet.replies(prompts[:1], temperature=0, max_new_tokens=40) == replies[:1]
    assert [both.before for both in replies] != [both.after for both in replies]
    assert all(both.before and both.after for both in replies)
    assert duet.replies(prompts, seed=3) == duet.replies(prompts, seed=3) != duet.replies(prompts, seed=4)
    assert duet.replies(prompts[:2], seed=3) == duet.replies(prompts, seed=3)[:2]


def test_greedy_replies_are_those_of_one_at_a_time(run: Run, duet: Duet) -> None:
    """In one batch, with padding and rows that end early, each side says what it says alone."""
    prompts = [pair.prompt for pair in run.pairs("held_out")]
    both = duet.replies(prompts, temperature=0, max_new_tokens=40)
    assert [reply.after for reply in both] == [one_by_one(duet, prompt, 40) for prompt in prompts]
    with duet.model.disable_adapter():
        assert [reply.before for reply in both] == [one_by_one(duet, prompt, 40) for prompt in prompts]


def test_each_side_goes_on_from_its_own_chat(duet: Duet) -> None:
    """Chats of different lengths are answered side by side, several tokens after each other, as each is alone."""
    longer = [{"role": "system", "content": "Be brief."}, *SHORT, {"role": "assistant", "content": "Hi."}, *HELLO]
    steps = list(duet.stream([longer, SHORT], temperature=0, max_new_tokens=30))
    assert len(steps) > 5
    before, after = joined(iter(steps))
    assert after == one_by_one(duet, SHORT, 30)
    with duet.model.disable_adapter():
        assert before == one_by_one(duet, longer, 30)


def test_without_an_effect_all_sides_say_the_same(run: Run, tmp_path: Path) -> None:
    """With the adapters' weights at zero, all sides draw the same words from the same seed."""
    nothing = [copy(run, tmp_path / name, scale=0) for name in "ab"]
    duet = Duet.open(*nothing)
    prompt = run.pairs("held_out")[0].prompt
    replies = {tuple(joined(duet.stream([prompt] * 3, seed=seed, temperature=1.0))) for seed in range(4)}
    assert len(replies) > 1
    assert all(len(set(sides)) == 1 for sides in replies)


def test_several_runs_answer_at_once(run: Run, duet: Duet, tmp_path: Path) -> None:
    """Before, and after each of the runs: what they say together is what each says alone."""
    other = copy(run, tmp_path / "other", scale=-1)
    before, after, otherwise, again = joined(Duet.open(run, other, run).stream([HELLO] * 4, temperature=0))
    assert again == after
    assert [before, after] == joined(duet.stream([HELLO] * 2, temperature=0))
    assert [before, otherwise] == joined(Duet.open(other).stream([HELLO] * 2, temperature=0))
    assert len({before, after, otherwise}) > 1


def test_what_is_measured_is_the_policys_own_writing(run: Run, duet: Duet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules of the model's own settings hold in a chat, and not where the policy itself is to be measured."""
    prompts = [pair.prompt for pair in run.pairs("held_out")][:4]
    own, free = (duet.sample_ids(prompts, temperature=temperature, seed=1) for temperature in (None, 1.0))
    assert own == free
    settings = duet.model.get_base_model().generation_config
    for name, value in (("repetition_penalty", 5.0), ("no_repeat_ngram_size", 1), ("min_p", 0.9)):
        monkeypatch.setattr(settings, name, value)
    assert duet.sample_ids(prompts, temperature=None, seed=1) == own
    assert duet.sample_ids(prompts, temperature=1.0, seed=1) != free


def test_what_has_ended_costs_nothing_and_closing_ends_all(run: Run, duet: Duet) -> None:
    """A side that has ended leaves the batch; once the stream is closed, the model does no more work."""
    chats, sizes = [run.pairs("held_out")[0].prompt, SHORT], []
    base = duet.model.get_base_model()
    hook = base.register_forward_pre_hook(
        lambda _model, _args, given: sizes.append(len(given["input_ids"])), with_kwargs=True
    )
    try:
        list(duet.stream(chats, temperature=0))
        assert sizes[0] == 2
        assert sizes[-1] == 1
        done = len(sizes)
        stream = duet.stream(chats, temperature=0)
        next(stream)
        stream.close()
        assert len(sizes) <= done + 2
    finally:
        hook.remove()


def test_no_half_characters_are_told(duet: Duet) -> None:
    """A character of several tokens is told whole, and blanks at the ends are not told at all."""
    text, said = Detokenizer(duet.tokenizer), []
    tokens = duet.tokenizer.encode(" Grüße, 世界 🙂 \n", add_special_tokens=False)
    said = [text.add(token) for token in tokens] + [text.flush()]
    assert len(tokens) > len([part for part in said if part])
    assert "\ufffd" not in "".join(said)
    assert "".join(said) == "Grüße, 世界 🙂"


def test_one_base_and_few_adapters_are_kept(run: Run, tmp_path: Path) -> None:
    """What is in memory is not loaded again; of too many adapters, that asked for longest ago goes."""
    models = Models()
    first = models.duet(run)
    for number in range(KEPT):
        assert models.duet(copy(run, tmp_path / str(number))).model is first.model
    assert len(first.model.peft_config) == KEPT
    assert set(first.sides).isdisjoint(first.model.peft_config)
    assert joined(models.duet(run).stream([HELLO] * 2, temperature=0))[0]


def test_runs_of_different_bases_are_refused(run: Run, tmp_path: Path) -> None:
    """A duet has one base, and which runs have others is told."""
    with pytest.raises(RunError, match="the base model of one is demo, of the other somewhere/else"):
        Duet.open(run, copy(run, tmp_path / "other", model="somewhere/else"))


def test_a_run_that_has_not_finished_is_refused(few_pairs: Path) -> None:
    """There is nothing to compare before training ends."""
    with pytest.raises(RunError, match="not finished"):
        Duet.open(Run.create(read_preferences(few_pairs), Recipe.for_model()))


@pytest.mark.parametrize(
    "parts",
    [
        {"target_modules": ["q_proj"], "modules_to_save": ["down_proj"]},
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [1, 2, 3]}},
    ],
    ids=["whole layers", "single tokens"],
)
def test_layers_that_are_not_plain_keep_to_their_rows(duet: Duet, parts: dict[str, Any]) -> None:
    """What PEFT adapts in other ways is written together as it is alone, and is left as it was."""
    base, tokenizer = load_base("demo")
    torch.manual_seed(0)
    policy = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **parts)).eval()
    for weights in policy.parameters():
        if weights.requires_grad:
            torch.nn.init.normal_(weights, std=0.05)
    forwards = {name: vars(layer).get("forward") for name, layer in policy.named_modules()}
    other = Duet(policy, tokenizer)
    before, after = joined(other.stream([HELLO] * 2, temperature=0, max_new_tokens=20))
    assert before == joined(duet.stream([HELLO] * 2, temperature=0, max_new_tokens=20))[0]
    assert before != after == one_by_one(other, HELLO, 20)
    assert {name: vars(layer).get("forward") for name, layer in policy.named_modules()} == forwards
