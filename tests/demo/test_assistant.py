from __future__ import annotations

import csv
from itertools import product

import pytest
from rapidfuzz import fuzz

from dpo_hub.demo.assistant import (
    BRAND_VOICE,
    CONCISENESS,
    GENERAL,
    HELPFULNESS,
    SAFETY,
    TONE,
    USES,
    Use,
    is_brief,
    is_unsafe,
    refuses,
    says_what_to_do,
    sentences,
    share_kept,
    words,
)
from dpo_hub.preferences import read_preferences, split_pairs, text_of
from dpo_hub.preferences.doctor import examine

NEARLY = 92
"""The likeness in percent of two prompts that ask the same: an unsafe request and its twin share most words."""


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_the_files_are_what_the_measures_say(use: Use) -> None:
    """Each file has 300 pairs and more, no pair twice, chosen replies as wanted and rejected ones not."""
    preferences = read_preferences(use.file)
    texts = [(text_of(p.prompt), text_of(p.chosen), text_of(p.rejected)) for p in preferences.pairs]
    assert len(set(texts)) == len(texts) >= 300
    assert len({prompt for prompt, _, _ in texts}) == (245 if use is SAFETY else len(texts))
    assert all(use.is_preferred(p, c) and not use.is_preferred(p, r) for p, c, r in texts)
    assert [finding.kind for finding in examine(preferences) if finding.severity == "high"] == []


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_no_held_out_prompt_is_nearly_one_that_is_trained_on(use: Use) -> None:
    """However the pairs are split, no prompt is another one in other words."""
    pairs = list(read_preferences(use.file).pairs)
    splits = split_pairs(pairs, 0.2, seed=0)
    train, held_out = (
        [text_of(pair.prompt) for pair, of in zip(pairs, splits, strict=True) if of == split]
        for split in ("train", "held_out")
    )
    assert len(held_out) >= 60
    near = [both for both in product(train, held_out) if fuzz.ratio(*both) > NEARLY]
    assert near == []


@pytest.mark.parametrize("use", [TONE, HELPFULNESS, SAFETY, BRAND_VOICE], ids=lambda use: use.name)
def test_length_does_not_tell_the_sides_apart(use: Use) -> None:
    """Where length is not the point, both sides are equally long, on average to a word and a half."""
    pairs = read_preferences(use.file).pairs
    gaps = [words(text_of(pair.chosen)) - words(text_of(pair.rejected)) for pair in pairs]
    assert abs(sum(gaps) / len(gaps)) <= 1.5


def test_unsafe_requests_and_their_harmless_twins_are_about_as_many() -> None:
    """Refusing everything, or nothing, gets at most two thirds of the prompts right."""
    prompts = {text_of(pair.prompt) for pair in read_preferences(SAFETY.file).pairs}
    assert 1 / 2 < sum(map(is_unsafe, prompts)) / len(prompts) < 2 / 3


def test_the_general_prompts_are_in_no_preference_file() -> None:
    """Two hundred of them, each once, with nothing to do with any use."""
    with GENERAL.open(encoding="utf-8", newline="") as file:
        asked = [row["prompt"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    assert len(set(asked)) == len(asked) == 200
    trained = {text_of(pair.prompt) for use in USES.values() for pair in read_preferences(use.file).pairs}
    assert not trained & set(asked)


@pytest.mark.parametrize(
    ("reply", "does"),
    [
        ("1. **Soak** the pan overnight.\n2. Then scrub it with salt.", True),
        ("Soak the pan. It is old.", False),
        ("You could soak the pan. You could scrub it.", False),
        ("First, soak the pan. Finally, dry it with a cloth.", True),
        ("", False),
    ],
)
def test_what_counts_as_saying_what_to_do(reply: str, does: bool) -> None:
    """Two sentences that begin with what to do, in a list or not."""
    assert says_what_to_do("", reply) is does


@pytest.mark.parametrize(
    ("reply", "refusal"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I am not able to give advice on this.", True),
        ("You can't open it without a key. Call a locksmith.", False),
        ("A lock has pins. They move. I can't help more.", False),
    ],
)
def test_what_counts_as_a_refusal(reply: str, refusal: bool) -> None:
    """Saying at once that one will not help, and not merely that something is impossible."""
    assert refuses(reply) is refusal


def test_a_brief_reply_names_what_was_asked() -> None:
    """Few words are not enough: the reply ends, and has a word of the question."""
    asked = "Why does my basil plant keep wilting?"
    assert is_brief(asked, "Basil wilts where its roots stand in water.")
    assert not is_brief(asked, "It depends.")
    assert not is_brief(asked, "Basil wilts where its roots stand in")
    assert not is_brief(asked, f"Basil wilts{' often' * 40}.")
    assert share_kept(asked, "Basil plants wilt.") == pytest.approx(2 / 3)
    assert not is_brief(CONCISENESS.name, "")


def test_sentences_lose_the_marks_of_lists() -> None:
    """Numbers, bullets and bold type are no words."""
    assert sentences("Do this:\n1. **Wash** it.\n- Dry it! Then rest.") == [
        "Do this:",
        "Wash it.",
        "Dry it!",
        "Then rest.",
    ]
