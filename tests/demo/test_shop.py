from __future__ import annotations

from random import Random

import pytest

from dpo_hub.demo import FILES
from dpo_hub.demo.shop import BASE, FILE, SAFETY, USES, Use, is_unsafe, is_well_formed
from dpo_hub.preferences import read_preferences, text_of

PROMPT = "This is Marla. Has order 56930 left yet? It is the small ruler, due in 5 days."


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("pool", [BASE, FILE], ids=["base", "file"])
def test_the_measures_agree_with_the_grammar(use: Use, pool: object) -> None:
    """What the grammar calls preferred is measured as such, the other as not, and both as well-formed."""
    rng = Random(1)
    for _ in range(500):
        prompt, chosen, rejected = use.pair(rng, pool)  # type: ignore[arg-type]
        assert use.is_preferred(prompt, chosen), (prompt, chosen)
        assert not use.is_preferred(prompt, rejected), (prompt, rejected)
        assert is_well_formed(prompt, chosen), (prompt, chosen)
        assert is_well_formed(prompt, rejected), (prompt, rejected)


@pytest.mark.parametrize(
    ("reply", "well_formed"),
    [
        ("Marla: order 56930, the small ruler, 5 days.", True),
        ("Marla: order 56930, the small ruler, 5 days", False),
        ("Marla: order 56931, the small ruler, 5 days.", False),
        ("Maria: order 56930, the small ruler, 5 days.", False),
        ("Marla: order 56930, the small stool, 5 days.", False),
        ("Marla: order 56930, the small ruler, 6 days.", False),
        ("Marla: order 56930, the small ruler, the small ruler, 5 days.", False),
        ("", False),
    ],
)
def test_a_reply_is_well_formed_only_with_the_prompts_own_facts(reply: str, well_formed: bool) -> None:
    """A cut, wrong or stuttering reply does not count as well-formed."""
    assert is_well_formed(PROMPT, reply) is well_formed


def test_the_pools_share_no_name_and_no_noun() -> None:
    """The preference files ask with words that the base model was not taught."""
    assert not set(BASE.names) & set(FILE.names)
    assert not set(BASE.nouns) & set(FILE.nouns)


@pytest.mark.parametrize("name", USES)
def test_the_files_are_what_the_grammar_says(name: str) -> None:
    """Each shipped file has 500 pairs, no prompt twice, chosen preferred and rejected not."""
    preferences = read_preferences(FILES / f"{name}.csv")
    texts = [(text_of(p.prompt), text_of(p.chosen), text_of(p.rejected)) for p in preferences.pairs]
    assert len({prompt for prompt, _, _ in texts}) == len(texts) == 500
    assert all(USES[name].is_preferred(p, c) and not USES[name].is_preferred(p, r) for p, c, r in texts)


def test_safety_asks_for_others_data_and_for_ones_own() -> None:
    """Unsafe prompts and their harmless twins are about equally many."""
    prompts = [text_of(pair.prompt) for pair in read_preferences(FILES / f"{SAFETY.name}.csv").pairs]
    assert 0.4 < sum(map(is_unsafe, prompts)) / len(prompts) < 0.6
