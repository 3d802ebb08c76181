"""The page's own parts, tried without a browser."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import gradio as gr
import pandas as pd

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.app import handlers, markup, page


def test_a_setting_that_is_true_or_false_is_a_checkbox() -> None:
    """What it gives is what the recipe takes."""
    boxes = {setting.name: page._box(setting, setting.default) for setting in fields(Recipe)}
    assert isinstance(boxes["auto_stop"], gr.Checkbox)
    assert isinstance(boxes["evaluations"], gr.Number)
    assert replace(Recipe(), auto_stop=boxes["auto_stop"].preprocess(True)).auto_stop is True


def test_a_figure_that_is_none_leaves_a_hole_in_its_curve(few_pairs: Path) -> None:
    """A run that broke down still shows its curves and its panel."""
    run = Run.create(read_preferences(few_pairs), Recipe.for_model())
    for step, loss in ((1, 0.7), (2, math.nan)):
        run.append_metrics({"step": step, "loss": loss, "margin": loss, "reward_accuracy": 0.5})
    progress = handlers.progress(run.id)
    assert progress is not None
    assert "nan" in markup.panel(progress)
    frame = pd.DataFrame(list(progress.curve), columns=["step", *page.CURVES])
    assert gr.LinePlot(x="step", y="loss").postprocess(frame).data[1][1] is None
