"""Runs as the page shows them: started, watched, and told without markup getting through."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.app.handlers import files, recipes, training
from dpo_hub.app.markup import recipe as recipe_markup
from dpo_hub.app.markup import train as markup
from dpo_hub.app.markup.chart import chart
from dpo_hub.app.steps.recipe import SETTINGS, _chosen_settings
from dpo_hub.app.visitors import Visitor
from dpo_hub.errors import ModelError, PreferencesError, RecipeError
from dpo_hub.hub.account import client
from dpo_hub.recipe import STRENGTHS
from dpo_hub.runs.state import State

from ..hub.conftest import ADA, BASE, hub, tiny  # noqa: F401  # fixtures
from ..hub.loopback import Hub


@pytest.fixture
def visitor(home: Path) -> Visitor:
    """Whoever sits before this machine."""
    return Visitor("", home)


@pytest.fixture
def run(few_pairs: Path) -> Run:
    """A queued run."""
    return Run.create(read_preferences(few_pairs), Recipe.for_model())


def _finish(run: Run) -> Run:
    """Leave in the folder what a worker leaves that has finished."""
    _log_steps(run, 2)
    run.write("evaluation.json", '{"reward_accuracy": 0.75, "pairs": 8, "prompts": 8, "changed": 0.5, "kl": 0.1}')
    run.write("samples.jsonl", '{"prompt": "<i>p</i>", "chosen": "c", "before": "b", "after": "a"}\n')
    run.set_state(State("finished"))
    return run


def _log_steps(run: Run, count: int, loss: float = 0.7) -> None:
    for step in range(1, count + 1):
        figures = dict.fromkeys(("chosen_reward", "rejected_reward", "chosen_logp", "rejected_logp", "grad_norm"), 0.1)
        run.append_metrics({"step": step, "loss": loss - step / 10, "margin": 0.1, "reward_accuracy": 0.5, **figures})


@pytest.mark.parametrize("gated", [True, False])
def test_a_gated_base_model_is_refused_before_training(
    few_pairs: Path,
    home: Path,
    hub: Hub,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    gated: bool,
) -> None:
    """A run outlives its visitor's session and has none of their tokens, which is said at once; public ones go on."""
    hub.repos[BASE].gated = gated
    begun: list[Run] = []
    monkeypatch.setattr(training, "client", partial(client, endpoint=hub.endpoint))
    monkeypatch.setattr(training, "begin", begun.append)
    visitor = Visitor("ada", home, ADA)
    file = files.save_copy(visitor.shelf, few_pairs)
    start = partial(training.start_training, visitor, file, {"model": BASE})
    if gated:
        with pytest.raises(ModelError, match=f"{BASE} is gated, .* does not use your account"):
            start()
    else:
        start()
    assert len(begun) == (not gated)


def test_progress_tells_step_and_time_left(run: Run, visitor: Visitor) -> None:
    """A running run says how far it is, and how long the rest takes at the pace so far."""
    run.claim(steps=10)
    _log_steps(run, 2)
    began = run.state.updated
    os.utime(run.path / "metrics.jsonl", (began + 60, began + 60))
    progress = training.progress(visitor, run.id)
    assert progress
    assert (progress.step, progress.steps, progress.ended) == (2, 10, False)
    assert progress.sentence == "Training, about 4 min left."


def test_a_finished_run_has_samples_and_suggestions(run: Run, visitor: Visitor) -> None:
    """At the end there are what came of it, reward accuracy with its interval, sample replies, and prompts to try."""
    progress = training.progress(visitor, _finish(run).id)
    assert progress
    assert progress.finished
    assert progress.sentence.startswith("Finished. It changed, but not clearly for the better: 4 of 8 held-out replies")
    assert progress.sentence in markup.panel(progress)
    assert "<dt>Held-out accuracy</dt><dd>75% (41% to 93%)</dd>" in markup.panel(progress)
    assert "&lt;i&gt;p&lt;/i&gt;" in markup.samples(progress)
    assert len(training.suggestions(visitor, run.id)) == training.SUGGESTIONS
    assert training.held_out_example(visitor, run.id)


def test_a_failed_run_says_why_and_no_markup_gets_through(run: Run, visitor: Visitor) -> None:
    """The reason stands in the sentence, escaped on the page."""
    run.set_state(State("failed", "No room for <b>it</b>."))
    progress = training.progress(visitor, run.id)
    assert progress
    assert progress.resumable
    assert progress.sentence == "Failed. No room for <b>it</b>."
    assert "&lt;b&gt;it&lt;/b&gt;" in markup.panel(progress)


def test_what_is_not_a_run_of_the_visitors_is_none(run: Run, visitor: Visitor, tmp_path: Path) -> None:
    """A folder, the beginning of an id, a path out of the runs, and another's run are nothing."""
    for name in (str(run.path), run.id[:5], "last", f"../runs/{run.id}", ".", ""):
        assert visitor.run(name) is None
        assert training.progress(visitor, name) is None
        training.stop_training(visitor, name)
        training.remove_run(visitor, name)
    assert Visitor("bob", tmp_path / "bob").run(run.id) is None
    assert visitor.run(run.id) == run


def test_a_removed_run_is_gone(run: Run, visitor: Visitor) -> None:
    """Its folder too."""
    training.remove_run(visitor, _finish(run).id)
    assert not run.path.exists()


def test_a_model_named_a_moment_ago_is_trained_with_its_own_settings() -> None:
    """Who names a model and presses Train at once sends the settings of the model before, which are not meant."""
    model, demo = "ada/base", recipes.settings_for("demo", "standard")
    shown = [model, *demo[1:]]
    meant = dict(zip(SETTINGS, recipes.settings_for(model, "strong"), strict=True))
    assert meant["learning_rate"] != demo[list(SETTINGS).index("learning_rate")]
    for kept in (None, dict(zip(SETTINGS, demo, strict=True))):
        assert _chosen_settings(None, "strong", kept, *shown) == meant
    own = {**meant, "beta": 0.7}
    assert _chosen_settings(None, None, own, f"{model} ", *list(own.values())[1:]) == {**own, "model": f"{model} "}


def test_only_finished_runs_on_the_same_base_compare(few_pairs: Path, run: Run, visitor: Visitor) -> None:
    """The run itself, those at work and those of another model are not offered."""
    same, other, queued = (
        Run.create(read_preferences(few_pairs), Recipe.for_model(model)) for model in ("demo", "a/b", "demo")
    )
    for one in (run, same, other):
        _finish(one)
    assert training.comparable(visitor, run.id) == [same.id]
    assert queued.state.status == "queued"


def test_an_empty_or_wrong_setting_is_told(visitor: Visitor) -> None:
    """The box is named; nothing is started."""
    settings = asdict(Recipe.for_model())
    with pytest.raises(RecipeError, match=r"^Epochs is empty\. Fill it in\.$"):
        training.start_training(visitor, "demo:tone", settings | {"epochs": None})
    with pytest.raises(RecipeError, match="epochs is 0; it must lie between"):
        training.start_training(visitor, "demo:tone", settings | {"epochs": 0})
    with pytest.raises(PreferencesError, match="not here any more"):
        training.start_training(visitor, "../tone", settings)
    assert visitor.runs() == []


def test_strengths_are_the_safe_recipe_turned_up_and_down() -> None:
    """Gentle stays closer to the base model than standard, strong goes further, and each is known again."""
    for model in ("demo", "owner/name"):
        gentle, standard, strong = (Recipe.for_model(model).at_strength(name) for name in STRENGTHS)
        assert standard == Recipe.for_model(model)
        assert gentle.beta > standard.beta > strong.beta
        assert gentle.learning_rate < standard.learning_rate < strong.learning_rate
    settings = asdict(Recipe.for_model().at_strength("strong"))
    assert recipes.strength_of(settings) == "strong"
    assert recipes.strength_of(settings | {"epochs": 7.0}) is None


def test_a_look_ahead_says_what_a_run_takes(visitor: Visitor) -> None:
    """Memory, time and pairs, from a process of its own; what cannot be loaded is a sentence without a path."""
    recipe = replace(Recipe.for_model(), max_length=40)
    ahead = recipes.run_preflight(visitor, "demo:tone", recipe)
    assert ahead["outlook"]["memory"]["peak"] > 0
    shown = recipe_markup.preflight(ahead)
    assert "Time here" in shown
    assert "max_length cuts off the end" in shown
    with pytest.raises(ModelError) as caught:
        recipes.run_preflight(visitor, "demo:tone", replace(recipe, model=str(visitor.shelf / "none")))
    assert "tone.csv" not in str(caught.value)


def test_without_the_hub_there_are_models_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that gets no answer offers what is offered from the start."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert recipes.models_named("qwen") == list(recipes.MODELS)


def test_a_chart_breaks_where_a_figure_is_none() -> None:
    """A run that broke down still shows its curves: the line has a hole, and what is known is said in words."""
    drawn = chart("Loss", {"trained": [(1, 0.5), (2, math.nan), (3, 0.25)], "held <out>": []}, steps=4)
    assert drawn.count("M") == 2
    assert "NaN" not in drawn.partition("<path")[2]
    assert 'aria-label="Loss: trained 0.25; held &lt;out&gt; …"' in drawn


def test_a_long_run_is_drawn_with_few_points() -> None:
    """Thousands of steps make no heavier page, and the last one is always there."""
    drawn = chart("Loss", {"trained": [(step, float(step)) for step in range(10_000)]}, steps=10_000)
    assert drawn.count("L") < 300
    assert "9999.00" in drawn
