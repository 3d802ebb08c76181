from __future__ import annotations

import pytest

from dpo_hub.preferences.layouts.columns import NAMES, SHOWN_COLUMNS, Columns, is_known, simple, split_words
from tests.preferences.layouts.conftest import Read, texts

CHOSEN = (
    "chosen accepted preferred better_response text_chosen pos_answer good winner preferred_response response_chosen "
    "chosen_response answer output response assistant text completion"
).split()
REJECTED = (
    "rejected worse_response text_rejected neg_answer bad loser dispreferred_response response_rejected "
    "rejected_response rejected_answer rejected_text"
).split()
PROMPTS = "prompt instruction question query user_prompt user input context history".split()


@pytest.mark.parametrize(
    "written", ["chosen_response", "Chosen Response", " CHOSEN-RESPONSE ", "\ufeffchosen_response", "chosen  response"]
)
def test_the_spelling_of_a_name_does_not_matter(written: str) -> None:
    """Case, spaces, hyphens and a byte-order mark do not make another column."""
    assert simple(written) == "chosen_response"
    assert Columns([written]).find("chosen") == written


@pytest.mark.parametrize("chosen", CHOSEN)
def test_every_name_of_the_chosen_reply_is_known(read: Read, chosen: str) -> None:
    """Each of the names seen in the wild stands for the chosen reply."""
    assert texts(read({"prompt": "p", chosen: "g", "rejected": "b"})) == [("p", "g", "b")]


@pytest.mark.parametrize("rejected", REJECTED)
def test_every_name_of_the_rejected_reply_is_known(read: Read, rejected: str) -> None:
    """Each of the names seen in the wild stands for the rejected reply."""
    assert texts(read({"prompt": "p", "chosen": "g", rejected: "b"})) == [("p", "g", "b")]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_every_name_of_the_prompt_is_known(read: Read, prompt: str) -> None:
    """Each of the names seen in the wild stands for the prompt."""
    assert texts(read({"rejected": "b", "chosen": "g", prompt: "p"})) == [("p", "g", "b")]


def test_the_likeliest_name_is_taken_first() -> None:
    """Where several columns could be the one, the usual name wins, and a column that is taken does not."""
    columns = Columns(["output", "Chosen", "input", "Instruction"])
    assert columns.find("chosen") == "Chosen"
    assert columns.find("chosen", without=["Chosen"]) == "output"
    assert columns.find("prompt") == "Instruction"
    assert columns.find("rejected") is None


def test_columns_are_found_as_the_source_spells_them() -> None:
    """What is found can be looked up in a row."""
    columns = Columns(["Score-Chosen", "parent id"])
    assert columns.named("chosen_score", "score_chosen") == "Score-Chosen"
    assert columns.spelled("PARENT_ID") == "parent id"
    assert columns.named("id") is columns.spelled("id") is None


@pytest.mark.parametrize(
    ("names", "sides"),
    [
        (["prompt", "response_a", "response_b"], ("response_a", "response_b", "a")),
        (["Response B", "Response-A"], ("Response-A", "Response B", "a")),
        (["answer1", "answer2"], ("answer1", "answer2", "1")),
        (["response_0", "response_1"], ("response_0", "response_1", "0")),
        (["outputA", "outputB"], ("outputA", "outputB", "a")),
        (["left_answer", "right_answer"], ("left_answer", "right_answer", "left")),
        (["first_response", "second_response"], ("first_response", "second_response", "first")),
        (["human_ref_B", "human_ref_A"], ("human_ref_A", "human_ref_B", "a")),
        (["response_0_source", "response_1_source", "response_0", "response_1"], ("response_0", "response_1", "0")),
        (["is_response_0_safe", "is_response_1_safe"], None),
        (["score_a", "score_b", "model_a", "model_b"], None),
        (["response_a_score", "response_b_score"], None),
        (["response_a"], None),
        (["response_1", "response_3"], None),
        (["prompt_a", "prompt_b"], None),
    ],
)
def test_two_answers_are_told_by_their_names(names: list[str], sides: tuple[str, str, str] | None) -> None:
    """Names that differ in their side only are two answers, the first one first; what is about answers is none."""
    assert Columns(names).sides() == sides


def test_only_some_names_are_shown() -> None:
    """A complaint about a table of a thousand columns is still a sentence."""
    names = [f"column_{number}" for number in range(SHOWN_COLUMNS + 1)]
    assert Columns(names).shown().count("'") == 2 * SHOWN_COLUMNS
    assert Columns(names).shown().endswith(" …")
    assert Columns(names[:2]).shown() == "'column_0', 'column_1'"


@pytest.mark.parametrize(
    ("name", "known"),
    [("Prompt", True), ("response_a", True), ("output 2", True), ("Where is it?", False), ("x", False)],
)
def test_a_header_is_told_from_a_row(name: str, known: bool) -> None:
    """A name that means something to us makes a row a header."""
    assert is_known(name) is known


def test_tokens() -> None:
    """Words and numbers come apart, whatever joins them."""
    assert split_words("Response A") == ["response", "a"]
    assert split_words("modelOutput-12") == ["model", "output", "12"]


def test_names_are_written_as_they_are_looked_up() -> None:
    """A name with an upper-case letter or a hyphen in the table would never be found."""
    assert [name for names in NAMES.values() for name in names if simple(name) != name] == []
