"""What is measured of a policy's replies, at the end of training and on request."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import pytest
import torch
from typer.testing import CliRunner

from dpo_hub.cli import cli
from dpo_hub.comparison.duet import Duet
from dpo_hub.comparison.evaluation import measure, measure_again
from dpo_hub.comparison.lengths import length_controlled
from dpo_hub.comparison.lens import Lens
from dpo_hub.errors import ModelError
from dpo_hub.hub.card import render_card
from dpo_hub.jobs import worker
from dpo_hub.runs.headline import headline_of
from dpo_hub.runs.progress import progress
from dpo_hub.runs.run import Run


@pytest.fixture
def run(trained_run: Run, tmp_path: Path) -> Run:
    """A copy of the finished run, with all that its card needs."""
    shutil.copytree(trained_run.path, tmp_path / "copy")
    copied = Run(tmp_path / "copy")
    copied.write("samples.jsonl", "")
    copied.write("README.md", render_card(copied))
    return copied


@pytest.fixture(scope="module")
def figures(trained_run: Run) -> Mapping[str, float]:
    lens = Lens.open(trained_run)
    return measure(lens, trained_run.pairs("held_out"), trained=trained_run.pairs("train")).figures


def test_kl_is_the_mean_over_written_tokens(trained_run: Run, figures: Mapping[str, float]) -> None:
    """By the plainest means: each reply alone, full logits of policy and reference, the tokens that were written."""
    lens = Lens.open(trained_run)
    duet = Duet.of(lens.model, lens.tokenizer)
    prompts = list({str(pair.prompt): pair.prompt for pair in trained_run.pairs("held_out")}.values())
    written = duet.sample_ids(prompts, temperature=1.0, seed=trained_run.recipe.seed, max_new_tokens=128)
    total, count = 0.0, 0
    for both in written:
        ids, where = torch.tensor([both.prompt + both.after]), torch.arange(len(both.after)) + len(both.prompt)
        with torch.no_grad():
            policy = lens.model(input_ids=ids).logits[0].double().log_softmax(-1)
            with lens.model.disable_adapter():
                reference = lens.model(input_ids=ids).logits[0].double().log_softmax(-1)
        tokens = ids[0, where]
        total += (policy[where - 1, tokens] - reference[where - 1, tokens]).sum().item()
        count += len(both.after)
    assert figures["kl"] == pytest.approx(total / count, abs=1e-5)
    assert figures["length_after"] == pytest.approx(fmean(len(both.after) for both in written))
    assert figures["length_change"] == pytest.approx(figures["length_after"] - figures["length_before"])


def test_every_figure_lies_in_its_interval(trained_run: Run, figures: Mapping[str, float]) -> None:
    """Of accuracy and margin training has the figure, and the interval is measured anew."""
    every = {**trained_run.evaluation, **figures}
    bounded = [name.removesuffix("_low") for name in figures if name.endswith("_low")]
    assert set(bounded) == {
        "reward_accuracy", "margin", "kl", "length_change", "like_chosen_right", "like_chosen_change"
    }  # fmt: skip
    for name in bounded:
        assert every[f"{name}_low"] <= every[name] <= every[f"{name}_high"], name
    shares = ("distinct_1_before", "distinct_2_after", "repeated_before", "repeated_after", "like_chosen_before")
    for name in (*shares, "changed", "like_chosen_after"):
        assert 0 <= figures[name] <= 1
    assert figures["like_chosen_change"] == figures["like_chosen_after"] - figures["like_chosen_before"]
    assert figures["prompts"] == len({str(pair.prompt) for pair in trained_run.pairs("held_out")})


def test_without_an_adapter_nothing_has_changed(trained_run: Run) -> None:
    """A policy that is its reference has no KL and writes the same."""
    lens = Lens.open(trained_run)
    for name, weights in lens.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(weights)
    same = measure(lens, trained_run.pairs("held_out"), trained=trained_run.pairs("train")).figures
    assert same["kl"] == pytest.approx(0, abs=1e-6)
    assert (same["length_change"], same["length_change_low"], same["length_change_high"]) == (0, 0, 0)
    assert same["distinct_2_before"] == same["distinct_2_after"]
    assert same["changed"] == 0
    assert (same["like_chosen_change"], same["like_chosen_change_low"], same["like_chosen_change_high"]) == (0, 0, 0)


def test_replies_are_told_beside_the_chosen_ones(trained_run: Run, figures: Mapping[str, float]) -> None:
    """How many differ, by their text; how long the chosen ones are, in tokens; where words say nothing, none are."""
    lens, held_out = Lens.open(trained_run), trained_run.pairs("held_out")
    duet, template = Duet.of(lens.model, lens.tokenizer), cast(Any, lens.tokenizer.apply_chat_template)
    prompts = list({str(pair.prompt): pair.prompt for pair in held_out}.values())
    written = duet.sample_ids(prompts, temperature=1.0, seed=trained_run.recipe.seed, max_new_tokens=128)
    replies = [duet.decode(both) for both in written]
    assert figures["changed"] == fmean(both.before != both.after for both in replies) > 0
    lengths = [
        len(template([*pair.prompt, *pair.chosen], return_dict=True)["input_ids"]) - lens.length(pair.prompt)
        for pair in held_out
    ]
    assert figures["length_chosen"] == pytest.approx(fmean(lengths), abs=1)
    said_nothing = [replace(pair, chosen=pair.rejected) for pair in trained_run.pairs("train")]
    unheard = measure(lens, held_out, trained=said_nothing, most=2).figures
    assert unheard["like_chosen_right"] == 0.5
    assert not unheard.keys() & {"like_chosen_before", "like_chosen_after", "like_chosen_change"}


def test_measured_again_it_is_in_evaluation_and_card(run: Run) -> None:
    """Asked for on the command line, the figures are told and recorded; an edited card stays as it is."""
    told = CliRunner().invoke(cli, ["evaluate", str(run.path)], catch_exceptions=False)
    assert told.exit_code == 0
    assert told.stdout.startswith(headline_of(run).sentence)
    assert f"**{headline_of(run, name='RUN').sentence}**" in run.card
    assert "KL, nats a token" in told.stdout
    assert "95 % interval" in told.stdout
    assert f"{run.evaluation['kl']:.3f}" in run.card
    run.write("README.md", run.card + "\nMy own words.\n")
    run.write("evaluation.json", json.dumps(run.evaluation | {"like_chosen_of_old": 0.5}))
    _, rendered = measure_again(run, most=2)
    assert "like_chosen_of_old" not in run.evaluation
    assert not rendered
    assert run.card.endswith("My own words.\n")
    assert run.evaluation["prompts"] == 2


def test_a_run_survives_what_its_evaluation_does_not(
    few_pairs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where memory does not suffice for the replies, the run has finished, without these figures."""
    from dpo_hub import Recipe, read_preferences

    def full(*_args: object, **_options: object) -> dict[str, float]:
        raise ModelError("The device's memory is full.")

    monkeypatch.setattr(worker, "measure", full)
    done = worker.work(Run.create(read_preferences(few_pairs), Recipe.for_model(epochs=0.5)))
    assert done.state.status == "finished"
    assert json.loads((done.path / "evaluation.json").read_text(encoding="utf-8")).keys() >= {"margin"}
    assert "prompts" not in done.evaluation
    assert "the replies were not measured" in caplog.text
    assert progress(done).sentence == (
        f"Finished. Whether its replies changed was not measured. Compare them now: dpo-hub evaluate {done.id}"
    )


def test_a_judge_of_length_alone_is_seen_through() -> None:
    """Who always prefers the longer reply has a high win rate, and one of a half at equal lengths."""
    differences = [8, 5, 3, 9, 2, -1, 6, -2, 4, 7, -3, 5, 1, 8, -4, 6] * 4
    outcomes = [float(difference > 0) for difference in differences]
    assert fmean(outcomes) == 0.75
    found = length_controlled(outcomes, differences)
    assert found
    low, high = found.interval
    assert low < 0.5 < high
    assert abs(found.win_rate - 0.5) < 0.2


def test_where_length_says_nothing_the_win_rate_stays() -> None:
    """Wins that do not go with length count in full; too few or all alike prove nothing."""
    differences = [4, -4, 2, -2] * 20
    outcomes = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0] * 10
    found = length_controlled(outcomes, differences)
    assert found
    assert found.win_rate == pytest.approx(0.75, abs=0.01)
    assert length_controlled([1, 0, 1], [1, 2, 3]) is None
    assert length_controlled([1.0] * 30, range(30)) is None
