"""What a finished run says of itself: in every place the same, and never better than it is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_hub import Recipe, Run, read_preferences
from dpo_hub.app.handlers import training
from dpo_hub.app.markup import runs as runs_markup
from dpo_hub.app.markup import train as markup
from dpo_hub.app.visitors import Visitor
from dpo_hub.jobs.worker import work
from dpo_hub.runs.headline import EARLIER, OPENINGS, SHORT, Grade, accuracy_interval, headline, headline_of
from dpo_hub.runs.health import Finding
from dpo_hub.runs.progress import progress

from ..cli.command import dpo_hub

ORDERED = {"pairs": 64, "reward_accuracy": 0.87, "reward_accuracy_low": 0.77, "reward_accuracy_high": 0.94}
REPLIES = {
    "prompts": 32, "changed": 31 / 32, "kl": 0.12, "length_before": 56.0, "length_after": 21.0, "length_chosen": 24.0,
    "length_change": -35.0, "length_change_low": -41.0, "length_change_high": -29.0,
    "repeated_before": 0.01, "repeated_after": 0.02,
}  # fmt: skip
SAME_LENGTH = {"length_after": 56.0, "length_change": 0.0, "length_change_low": -3.0, "length_change_high": 3.0}


def liking(before: float, after: float, low: float, high: float) -> dict[str, float]:
    """What words say of the replies."""
    own = {"right": 0.9, "before": before, "after": after, "change": after - before}
    return {f"like_chosen_{name}": figure for name, figure in own.items()} | {
        "like_chosen_change_low": low,
        "like_chosen_change_high": high,
    }


def winning(rate: float, low: float, high: float, who: str = "") -> dict[str, float]:
    figures = {"win_rate": rate, "win_rate_low": low, "win_rate_high": high, "comparisons": 40}
    return {f"{who}{name}": figure for name, figure in figures.items()}


GAINED, LOST, OPEN = liking(0.31, 0.78, 0.3, 0.62), liking(0.5, 0.2, -0.5, -0.1), liking(0.4, 0.5, -0.1, 0.3)
GRAVE = Finding("likelihood-displacement", "high", "…", "Raise --beta, for example to 0.3.", 1, 9, True)
IDLE = Finding("no-learning", "high", "…", "Raise --learning-rate, for example to 0.001.", 1, 9)


def test_it_begins_with_what_changed_and_then_how_far() -> None:
    """Replies, likeness before and after with its interval, distance and length, in two sentences."""
    told = headline({**ORDERED, **REPLIES, **GAINED}, [])
    assert told.grade == "learned"
    assert told.sentence == (
        "It learned it: 31 of 32 held-out replies changed, and 78% now read like the chosen ones, before 31% (95% "
        "interval of the change: +30 to +62 points). It moved 0.12 nats a token (KL) from the base model; replies went "
        "from 56 to 21 tokens (chosen: 24)."
    )
    assert "nats a token (KL) from the run it began with;" in headline(REPLIES, [], before=EARLIER).sentence


@pytest.mark.parametrize(
    ("figures", "findings", "grade", "told"),
    [
        ({**REPLIES, "changed": 0.0, **GAINED}, [], "hardly", "all 32 held-out replies are word for word what they"),
        ({**REPLIES, "changed": 0.0, **winning(1, 0.9, 1)}, [IDLE], "hardly", IDLE.advice),
        ({**REPLIES, "changed": 0.2}, [], "hardly", "Train it again with a higher --learning-rate"),
        ({**REPLIES, **SAME_LENGTH, "kl": 0.004}, [], "hardly", "31 of 32 held-out replies changed, but little"),
        ({**REPLIES, **GAINED, "kl": 0.004}, [], "learned", "It moved 0.004 nats"),
        ({**REPLIES, **GAINED}, [GRAVE], "too-much", "even the chosen replies became unlikely; 31 of 32"),
        ({**REPLIES, **GAINED, "kl": 1.2}, [], "too-much", "a lower --learning-rate"),
        ({**REPLIES, **GAINED, "repeated_after": 0.3}, [], "too-much", "they repeat themselves: 30% of it, before 1%"),
        (REPLIES, [], "learned", "their length is nearer to that of the chosen ones"),
        ({**REPLIES, "length_chosen": 60.0}, [], "unclear", "dpo-hub vote RUN"),
        ({**REPLIES, **SAME_LENGTH}, [], "unclear", "31 of 32 held-out replies changed."),
        ({**REPLIES, **SAME_LENGTH, **OPEN}, [], "unclear", "50% now read like the chosen ones, before 40%"),
        ({**REPLIES, **GAINED, **winning(0.3, 0.2, 0.45)}, [], "worse", "people preferred the new reply in 30% of 40"),
        ({**REPLIES, **LOST}, [], "worse", "before 50% (95% interval of the change: -50 to -10 points)"),
        ({**REPLIES, **GAINED, **winning(0.6, 0.4, 0.8)}, [], "learned", "78% now read like the chosen ones"),
        ({**REPLIES, **SAME_LENGTH, **winning(0.6, 0.4, 0.8)}, [], "unclear", "(95% interval 40% to 80%)."),
        (
            {**REPLIES, **GAINED, **winning(0.7, 0.6, 0.8, "judge_")}, [], "learned",
            "a judge model preferred the new reply in 70% of 40 comparisons (95% interval 60% to 80%)",
        ),
        ({**REPLIES, "length_after": 99.0, "length_change_low": 30.0, "length_change_high": 60.0}, [], "unclear",
         "from 56 to 99 tokens (far beyond the chosen ones: 24)"),
        ({}, [], "unmeasured", "Compare them now: dpo-hub evaluate RUN"),
        (winning(0.6, 0.4, 0.8), [], "unmeasured", "people preferred"),
        ({"kl": math.nan}, [GRAVE], "too-much", "Raise --beta"),
    ],
)  # fmt: skip
def test_grades(figures: Mapping[str, float], findings: list[Finding], grade: Grade, told: str) -> None:
    """Too much comes before too little, people before judges before words, and what is open is called open."""
    found = headline({**ORDERED, **figures}, findings)
    assert found.grade == grade
    assert found.sentence.startswith(OPENINGS[grade])
    assert told in found.sentence
    assert found.short == SHORT[grade]


@pytest.mark.parametrize("accuracy", [{"pairs": 4, "reward_accuracy": 0.75}, {"reward_accuracy": math.nan}, {}])
def test_words_do_not_suffice_where_held_out_pairs_are_not_ordered(accuracy: Mapping[str, float]) -> None:
    """Replies that read like the chosen ones, of a policy that cannot tell them apart, may be chance; votes are not."""
    assert headline({**accuracy, **REPLIES, **GAINED}, []).grade == "unclear"
    assert headline({**accuracy, **REPLIES, **winning(0.7, 0.6, 0.8)}, []).grade == "learned"


def test_accuracy_is_never_without_an_interval() -> None:
    """Of so many pairs that none was measured, each pair counts as a draw."""
    assert accuracy_interval(ORDERED) == (0.77, 0.94)
    low, high = accuracy_interval({"pairs": 2_000, "reward_accuracy": 0.6})
    assert 0.57 < low < 0.6 < high < 0.63


FIGURE = st.floats(-1, 2) | st.just(math.nan)
FIGURES = dict.fromkeys({**ORDERED, **REPLIES, **GAINED}, FIGURE) | {
    "reward_accuracy": st.floats(0, 1) | st.just(math.nan)
}


@given(st.fixed_dictionaries({}, optional=FIGURES), st.booleans())
def test_what_has_not_changed_has_never_learned(figures: dict[str, float], grave: bool) -> None:
    """Whatever else is measured, and however much of it."""
    votes = winning(0.9, 0.8, 1) | winning(0.9, 0.8, 1, "judge_")
    counts = {name: 5 for name in ("pairs", "prompts") if name in figures}
    found = headline({**figures, **counts, **votes, "changed": 0.0}, [GRAVE] if grave else [])
    assert found.grade in ("hardly", "too-much")
    assert found.sentence.startswith(OPENINGS[found.grade])
    assert "nan" not in found.sentence


@pytest.mark.full
def test_a_run_that_learned_says_so(few_pairs: Path) -> None:
    """Trained as the demo is, replies become like the chosen ones, and card, log and list begin with it."""
    run = work(Run.create(read_preferences(few_pairs), Recipe.for_model(epochs=8)))
    told = progress(run).headline
    assert told
    assert told.sentence.startswith("It learned it: ")
    assert "now read like the chosen ones, before " in told.sentence
    assert f"**{told.sentence}**" in run.card
    assert "naive Bayes over the words of the training pairs" in " ".join(run.card.split())
    assert run.log_tail(1).endswith(f"finished: {told.sentence}")


def test_a_run_that_learned_nothing_says_so_everywhere(few_pairs: Path, home: Path) -> None:
    """At a learning rate of next to nothing every reply stays as it was, whatever reward accuracy says."""
    trained = dpo_hub("train", few_pairs, "--learning-rate", "1e-7", "--epochs", "1")
    assert trained.returncode == 0, trained.stderr
    said = "It hardly changed: all 8 held-out replies are word for word what they were."
    closing = trained.stdout.partition("8 held out.\n")[2].splitlines()
    assert closing[0].startswith(said)
    assert closing[1].startswith("Held-out reward accuracy")
    assert "(95% interval " in closing[1]
    run = Run.open("last")
    told = headline_of(run)
    assert closing[0] == told.sentence
    assert f"finished: {told.sentence}" in run.log_tail(1)
    assert f"{run.id}: Finished. {said}" in dpo_hub("status").stdout
    assert "Hardly changed" in dpo_hub("runs").stdout
    for listed in (
        json.loads(dpo_hub("status", "--json").stdout),
        *json.loads(dpo_hub("runs", "--json").stdout)["runs"],
    ):
        assert listed["headline"] == {"grade": "hardly", "sentence": told.sentence}
    assert f"# A LoRA adapter trained with DPO\n\n**{told.sentence}**\n" in run.card
    shown = training.progress(Visitor("", home), run.id)
    assert shown
    assert said in markup.panel(shown)
    assert ">Hardly changed</span>" in runs_markup.runs([(run, progress(run))], "")
    assert (training.status(Visitor("", home), run.id) or {})["headline"]["grade"] == "hardly"
