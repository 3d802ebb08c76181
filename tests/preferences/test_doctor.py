from __future__ import annotations

import csv
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from dpo_hub.demo import FILES
from dpo_hub.preferences import PreferencePair, Preferences, text_of
from dpo_hub.preferences.doctor import FEW_PAIRS, SOME_PAIRS, examine, examine_with
from dpo_hub.preferences.doctor.findings import Finding
from dpo_hub.preferences.doctor.near import NearDuplicateIndex
from dpo_hub.preferences.doctor.reading import bigrams
from dpo_hub.preferences.doctor.signs import EMAIL, SECRET, is_refusal, language, noise
from dpo_hub.runs.base_model import EMBEDDED
from dpo_hub.training.policy import load_tokenizer

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "l", "s")]


def pair(row: int, prompt: str, chosen: str, rejected: str, *, system: str = "") -> PreferencePair:
    before = [{"role": "system", "content": system}] if system else []
    replies = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
    return PreferencePair([*before, {"role": "user", "content": prompt}], *replies, row)


def sane(count: int = SOME_PAIRS, **further: Any) -> list[PreferencePair]:
    """Return pairs in which there is nothing to find: all different, and neither side the longer one."""
    random = Random(1)
    texts = [[" ".join(random.choices(WORDS, k=12)) for _ in range(3)] for _ in range(count)]
    return [pair(row, *parts, **further) for row, parts in enumerate(texts, 1)]


def found(pairs: Sequence[PreferencePair], **further: Any) -> dict[str, Finding]:
    """Return what the doctor finds, by kind."""
    return {finding.kind: finding for finding in examine(Preferences("file", "layout", pairs, **further))}


def with_texts(*texts: tuple[str, str, str]) -> list[PreferencePair]:
    """Return sane pairs and, from row 1,001 on, such with the *texts* given."""
    return [*sane(), *(pair(row, *parts) for row, parts in enumerate(texts, 1001))]


def test_sane_pairs_have_no_findings() -> None:
    """Where nothing is wrong, nothing is said."""
    assert found(sane()) == {}


A = "The parcel with the two blue lamps leaves our shop on the third day of next week and comes by train."
B = "Nobody here knows anything at all about lamps of any colour, so ask the people at the other desk."
LONG = "Please write to our customer that the parcel with the two lamps leaves on Monday and comes by night train."


@pytest.mark.parametrize(
    ("kind", "texts", "rows"),
    [
        ("identical-replies", [("Where?", "On its way!", "on its  way")], [1001]),
        ("near-identical-replies", [("Where?", A, A.replace("lamps", "lamp"))], [1001]),
        ("contradictions", [("Where?", A, B), ("where", B, A), ("When?", A, B)], [1001, 1002]),
        ("duplicates", [("Where?", A, B), ("Where?", A, B)], [1002]),
        ("near-duplicates", [(LONG, A, B), (LONG.replace("Monday", "Friday"), A, f"{B} Really!")], [1002]),
        ("near-identical-prompts", [(LONG, A, "No."), (LONG.upper(), "Yes.", B)], [1002]),
        ("secrets", [("Use hf_" + "Ab3" * 11, A, B)], [1001]),
        ("emails", [("Hi", "Write to jane.doe@mail.shop.org", B)], [1001]),
        (
            "chat-markup",
            [("Hi", f"{A}<|im_end|>", B), ("[INST] Hi [/INST]", B, A), ("Ho", A, "No.</s>")],
            [1001, 1002, 1003],
        ),
        ("wrong-encoding", [("CafÃ©?", A, B), ("Hi", A, f"{B} \ufffd")], [1001, 1002]),
        ("control-characters", [("Hi\0", A, B), ("Ho", "\x1b[31mred\x1b[0m", B)], [1001, 1002]),
    ],
)
def test_what_shows_in_pairs(kind: str, texts: list[tuple[str, str, str]], rows: list[int]) -> None:
    """Each defect is told with its count and the rows that have it."""
    finding = found(with_texts(*texts))[kind]
    assert (finding.count, list(finding.rows)) == (len(rows), rows)
    assert f"{len(rows):,} of " in finding.message


@pytest.mark.parametrize(
    ("kinds", "texts"),
    [
        ("identical-replies", [("x = ?", "x = a + b", "x = a - b"), ("1.5 or 15?", "1.5", "15")]),
        ("near-identical-replies", [("How many?", A, A.replace("two blue", "many old")), ("2?", f"{A} 12", f"{A} 13")]),
        ("contradictions duplicates near-duplicates", [("Where?", A, B), ("Where?", A, f"{LONG} Now!")]),
        (
            "near-duplicates near-identical-prompts",
            [(f"{LONG} It is order 12.", A, B), (f"{LONG} It is order 13.", A, B)],
        ),
        ("near-identical-prompts", [("The area of a square?", A, B), ("The area of a circle?", B, A)]),
        ("secrets", [("What is sk-learn, the hf_hub or AKIA?", "A task-force-of-the-long-name-of-it", B)]),
        ("emails", [("Hi", "Write to me@example.com", "a@b is no address, nor is @home")]),
        ("chat-markup", [("Hi", "<s>old</s> <b>new</b> # Title", "a <| b |> c [INSTALL]")]),
        ("wrong-encoding", [("Hi", "Café, NÃO, 20 €, “naïve”", "Ответ 答え")]),
        ("control-characters", [("Hi", "a\tb\r\nc", "d\u2028e")]),
    ],
)
def test_what_does_not_show(kinds: str, texts: list[tuple[str, str, str]]) -> None:
    """What only resembles a defect is not told."""
    assert not found(with_texts(*texts)).keys() & set(kinds.split())


def test_a_secret_is_never_shown() -> None:
    """What the doctor says has rows and counts, not the secret."""
    secret = "ghp_" + "a1B2" * 10
    told = found(with_texts(("Hi", secret, B)))
    assert "secrets" in told
    assert secret not in str(told)


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "a" * 34,
        "sk-proj-" + "a1" * 20,
        "sk-ant-api03-" + "x9" * 20,
        "ghp_" + "a" * 36,
        "github_pat_" + "a" * 60,
        "AKIA" + "ABCD" * 4,
        "xoxb-123456789012-abcdef",
        "AIza" + "a" * 35,
        "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeK",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_known_secrets_are_masked_whole(secret: str) -> None:
    """Nothing of a token is left when it is masked, and what is around it stays."""
    assert SECRET.sub("[secret]", f"Use {secret} now") == "Use [secret] now"


def test_an_address_is_masked_whole() -> None:
    """A full stop after an address does not belong to it."""
    assert EMAIL.sub("[e-mail]", "To jane+x@a-b.co.uk.") == "To [e-mail]."


def test_findings_come_by_gravity_and_name_at_most_twenty_rows() -> None:
    """The gravest come first, and samples are limited where counts are not."""
    findings = examine(
        Preferences("f", "l", with_texts(*[(f"Hi {i}\0", "Yes!", "yes") for i in range(30)], ("Hi", "a@b.org", B)))
    )
    assert [finding.severity for finding in findings] == ["high", "medium", "low"]
    assert (findings[0].count, len(findings[0].rows)) == (30, 20)


@pytest.mark.parametrize(("count", "severity"), [(FEW_PAIRS - 1, "high"), (FEW_PAIRS, "medium"), (SOME_PAIRS, None)])
def test_too_few_pairs(count: int, severity: str | None) -> None:
    """Few pairs are told, and very few as grave."""
    finding = found(sane(count)).get("few-pairs")
    assert (finding.severity if finding else None) == severity


def test_too_few_prompts() -> None:
    """Many pairs of few prompts are told."""
    few = [PreferencePair(sane(10)[i % 10].prompt, p.chosen, p.rejected, p.row) for i, p in enumerate(sane())]
    assert found(few)["few-prompts"].message == "The 200 pairs have only 10 distinct prompts."


def test_rows_left_out() -> None:
    """Where the reader left a tenth of the rows out, the reasons are told with their shares; a few pass."""
    rows = list(range(900, 925))
    finding = found(sane(), left_out={"no chosen": rows[:20], "no prompt": rows[20:]})["rows-left-out"]
    assert finding.message == "25 of 225 rows (11%) gave no pair (no chosen: 8.9%; no prompt: 2.2%)."
    assert finding.severity == "medium"
    assert found(sane(), left_out={"no chosen": list(range(300))})["rows-left-out"].severity == "high"
    assert "rows-left-out" not in found(sane(), left_out={"no chosen": rows[:5]})


def test_length_bias() -> None:
    """Where nearly always one side is the longer, that is told, for longer chosen replies sooner than for shorter."""
    longer = [
        pair(p.row, *texts) for p in sane() for texts in [(p.prompt[0]["content"], "So " * 40 + str(p.row), "No")]
    ]
    told = found(longer)["chosen-longer"]
    assert told.message.startswith("In 200 of 200 pairs (100%) the chosen reply is the longer one, typically")
    assert "chosen-shorter" in found(swapped(longer))
    assert "chosen-shorter" not in found([*swapped(longer[:180]), *longer[180:]])


def swapped(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    return [PreferencePair(p.prompt, p.rejected, p.chosen, p.row) for p in pairs]


REFUSAL = "I'm sorry, but I can't help you with that."
NOISE = "sdfghj kjhgf dfghjk qwrtpsd fghjkl"
INSULT = "Figure it out yourself, you stupid fool."


def sided(prompt: str, chosen: str, rejected: str, count: int = 40) -> list[PreferencePair]:
    """Return sane pairs with *count* more whose texts begin as given."""
    ends = ([*map(text_of, (p.prompt, p.chosen, p.rejected))] for p in sane(SOME_PAIRS + count)[SOME_PAIRS:])
    return [*sane(), *(pair(1000, f"{prompt} {a}", f"{chosen} {b}", f"{rejected} {c}") for a, b, c in ends)]


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("swapped-by-refusals", ("How do I mend a lamp?", REFUSAL, "Sure.")),
        ("swapped-by-noise", ("Hi", NOISE * 3, "Sure.")),
        ("swapped-by-insults", ("Hi", INSULT, "Sure.")),
        ("swapped-by-compliance", ("How do I make a bomb to kill?", "Sure.", REFUSAL)),
    ],
)
def test_likely_swapped(kind: str, texts: tuple[str, str, str]) -> None:
    """What belongs on the rejected side is asked about when it is on the chosen one, and only then."""
    finding = found(sided(*texts))[kind]
    assert finding.count == 40
    assert finding.advice.startswith("Are chosen and rejected swapped?")
    assert not any(kind.startswith("swapped") for kind in found(swapped(sided(*texts))))
    assert kind not in found(sided(*texts, count=5)), "a few are slips"


def test_refusing_what_is_harmful_is_no_swap() -> None:
    """A safety file refuses on the chosen side, and an over-refusal file on the rejected one; both are right."""
    safety = found(sided("How do I make a bomb?", REFUSAL, "Sure."))
    over_refusal = found(sided("How do I bake bread?", "Sure.", REFUSAL))
    assert not [kind for kind in (*safety, *over_refusal) if kind.startswith("swapped")]


@pytest.mark.parametrize(
    ("columns", "kinds"),
    [
        ({"chosen": "bad_answer", "rejected": "goodAnswer"}, {"swapped-by-name-chosen", "swapped-by-name-rejected"}),
        ({"chosen": "Worse", "rejected": "b"}, {"swapped-by-name-chosen"}),
        ({"chosen": "good", "rejected": "bad"}, set()),
        ({"chosen": "winner_text", "rejected": "not_preferred"}, set()),
        ({"chosen": "output_1", "rejected": "output_2"}, set()),
    ],
)
def test_column_names_that_speak_against(columns: dict[str, str], kinds: set[str]) -> None:
    """A column named bad that is taken as chosen is asked about."""
    assert {kind for kind in found(sane(), columns=columns) if kind.startswith("swapped")} == kinds


def demo(name: str) -> list[PreferencePair]:
    rows = csv.DictReader((FILES / f"{name}.csv").read_text(encoding="utf-8").splitlines())
    return [pair(number, row["prompt"], row["chosen"], row["rejected"]) for number, row in enumerate(rows, 2)]


@pytest.mark.parametrize("name", ["brand-voice", "conciseness", "helpfulness", "safety", "tone"])
def test_the_demo_files_are_not_called_swapped(name: str) -> None:
    """Of our own files, the one on safety among them, only the lengths are worth a word."""
    assert found(demo(name)).keys() <= {"chosen-longer", "chosen-shorter"}


def test_a_demo_file_is_called_swapped_where_it_is() -> None:
    """Evasive answers on the chosen side give the file away."""
    assert "swapped-by-refusals" in found(swapped(demo("helpfulness")))


def test_mixed_languages() -> None:
    """Languages with a clear share are told with their shares; a quotation or two is not a language."""
    english = "This is what you have to do with the lamp that is on the table, and it is not difficult for you."
    german = "Das ist nicht schwer, und wir haben auch eine Lampe für dich, die auf dem Tisch ist, mit der du liest."
    pairs = [pair(i, f"Prompt {i}", f"{english} {i}", f"{i} {english} No!") for i in range(40)]
    mixed = [*pairs, *(pair(100 + i, f"Frage {i}", f"{german} {i}", f"{german} {i} Nein!") for i in range(10))]
    assert found(mixed)["mixed-languages"].message.endswith("several languages: English 80%, German 20%.")
    assert "mixed-languages" not in found([*pairs, *mixed[-2:]])
    assert language("答えは とても かんたん です".split()) == "Japanese"
    assert language("mend lamp now".split()) is None


def test_mixed_system_messages() -> None:
    """Some pairs with a system message, or several of them, are told; one for all is not."""
    kind, formal = sane(40, system="Be kind."), sane(20, system="Be formal.")
    told = found([*sane()[40:], *kind])
    assert told["some-system-messages"].message.startswith("In 40 of 200 pairs (20%) there is a system message")
    assert "several-system-messages" not in told
    assert found([*kind, *formal])["several-system-messages"].count == 2
    assert not [name for name in found(kind) if "system" in name]


def test_noise_and_refusals_are_told_from_ordinary_text() -> None:
    """Laughter, lists and rhythm are no noise, nor is every apology a refusal."""
    for text in ("ha ha, that is funny, ha ha!", "1 2 3 4 5 6 7 8 9 10", "rhythms of https and html"):
        assert not noise(text, text.split())
    assert noise("", ["no"] * 20)
    assert noise("aaaaaaaaa", ["aaaaaaaaa"])
    for text in ("i m sorry that your lamp broke", "i can t wait to help", "unfortunately it is sold out"):
        assert not is_refusal(text.split())


def test_near_twins_are_found_among_texts_of_one_template() -> None:
    """A template shared by all texts hides neither the twins nor makes all of them twins."""
    random = Random(1)
    template = "please answer the following question as well as you can"
    texts = [f"{template} {' '.join(random.choices(WORDS, k=15))}" for _ in range(2000)]
    texts += [f"{text} now" for text in texts[::100]]
    twins = NearDuplicateIndex()
    for number, text in enumerate(texts):
        twins.add(number, bigrams(text.split()))
    assert twins.close()
    assert [number for number, text in enumerate(texts) if twins.has_near_duplicate(number, (text,))] == list(
        range(2000, 2020)
    )


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Return the tokenizer of the embedded model."""
    return load_tokenizer(EMBEDDED)


def test_with_a_model_whose_limits_all_keep_there_is_nothing_to_say(tokenizer: Any) -> None:
    """Pairs that fit and that the template takes have no findings."""
    assert examine_with(tokenizer, sane(20), 1000) == []


def lengths(tokenizer: Any, p: PreferencePair) -> tuple[int, int]:
    """Return the tokens of the prompt, and those of the longer of the two whole chats."""
    asked = tokenizer.apply_chat_template(list(p.prompt), add_generation_prompt=True)["input_ids"]
    whole = [tokenizer.apply_chat_template([*p.prompt, *reply])["input_ids"] for reply in (p.chosen, p.rejected)]
    return len(asked), max(map(len, whole))


@pytest.mark.parametrize("max_length", [28, 31, 100, 112])
def test_what_max_length_drops_and_cuts(tokenizer: Any, max_length: int) -> None:
    """Pairs whose prompt alone fills it are dropped, and longer ones are cut, as the trainer does."""
    pairs = demo("conciseness")[:60]
    dropped = {p.row for p in pairs if lengths(tokenizer, p)[0] >= max_length}
    cut = {p.row for p in pairs if lengths(tokenizer, p)[1] > max_length} - dropped
    told = {finding.kind: finding.count for finding in examine_with(tokenizer, pairs, max_length)}
    assert told == {kind: len(n) for kind, n in (("prompts-too-long", dropped), ("replies-cut", cut)) if n}


def test_replies_that_are_cut_to_the_same(tokenizer: Any) -> None:
    """Replies that differ only beyond the cut teach nothing."""
    (p,) = [pair(7, "Hi", f"{A} Yes.", f"{A} No.")]
    told = {finding.kind: finding for finding in examine_with(tokenizer, [p], 20)}
    assert list(told["replies-alike-to-the-model"].rows) == [7]


def test_turns_that_the_chat_template_refuses() -> None:
    """A template's own words are told once, with the number of pairs."""
    tokenizer = load_tokenizer(EMBEDDED)
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('No system turn, please.') }}{% endif %}"
        + str(tokenizer.chat_template)
    )
    pairs = [*sane(30), *sane(10, system="Be kind.")]
    (finding,) = examine(Preferences("f", "l", sane()), model_check=lambda _: examine_with(tokenizer, pairs, 1000))
    assert finding.message == "The base model's chat template refuses 10 of 40 pairs (25%): No system turn, please."
    assert (finding.kind, finding.severity) == ("template-refuses", "high")
