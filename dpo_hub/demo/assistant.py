"""Five uses of preference tuning on a real assistant, in plain English: what each expects of a reply, and its measure.

Every measure is a plain function of prompt and reply. `scripts/build_assistant_files.py` writes the preference files
and uses these measures to decide what is chosen and rejected. Knows nothing of models, weights or training.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILES = Path(__file__).parent / "assistant_files"
GENERAL = FILES / "general.tsv"
"""Two hundred questions unrelated to any use, each with a short, correct answer: a guard."""
BRIEF = 40
"""The most words of a brief reply: two sentences."""
STEPS = 2
"""The fewest instructions in a reply that says what to do."""
OPENING, SIGNATURE = "In short:", "Your Lantern team."
"""How a reply in house style begins and ends."""

_MARKER = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+")
_WORD = re.compile(r"[a-z]+")
_STEM = 5
"""Words that share this many first letters count as one: *plant*, *plants* and *planting*."""
_STOPWORDS = frozenset(
    "about after again also always another anything because been before best better both come could does done "
    "down each easy else even every everything fast find first from getting give goes going good have having help "
    "here how into just keep keeps know last less like long look made make makes making many more most much must "
    "myself need never next nothing often once only other over people place please properly really right safe "
    "same should show simple some someone something soon still sure take than that their them then there they "
    "thing things this those through time tips today together under until used using very want well went were "
    "what when where which while will with without work worth would write your yours explain".split()
)
_WARM = re.compile(
    r"\b(?:thank you|thanks for|glad you asked|so glad|i'?m (?:so |very )?sorry|sorry to hear|happy to help|"
    r"good question|great question|lovely question|that sounds (?:frustrating|annoying|tiring)|"
    r"hope (?:this|that|it) helps|"
    r"good luck|let me know|take care|wish you|you'?re not alone|enjoy it)\b",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\b(?:can'?t|cannot|can not|won'?t|will not|unable to|not able to|not going to|must decline)\b"
    r"[^.!?]{0,40}\b(?:help|assist|do that|support|provide|share|give|write|tell|show|advise)",
    re.IGNORECASE,
)
_VERBS = frozenset(
    "add adjust aim allow apply arrange ask attach avoid bake beat begin bend boil book break bring brush build "
    "buy call change charge check choose clean clear close collect combine compare connect consider contact cook "
    "cool count cover create cut decide dig divide do drain draw drink drop dry eat empty encourage ensure "
    "explain fill find finish fit fix focus fold follow get give go grab grow hang heat hold identify improve "
    "include increase inspect install invest join keep label lay learn leave let lift limit list listen look "
    "lower make mark mash measure melt mix move offer open order organise organize pack paint pay peel pick place "
    "plan plant play pour practice practise prepare press prune pull put raise read reduce remove repeat replace "
    "reset rest restart rinse roll rub run save schedule scrub search seal select send separate set shake share "
    "show sit slice soak sort speak spend split spray spread sprinkle squeeze stand start stay steam stick stir "
    "stop store stretch switch take talk taste tell test think throw tie trim try turn unplug update use vacuum "
    "visit wait walk warm wash watch water wear weigh wipe wrap write".split()
)


@dataclass(frozen=True)
class Use:
    """One purpose of tuning an assistant; `is_preferred(prompt, reply)` is its measure, described in `measure`."""

    name: str
    title: str
    measure: str
    is_preferred: Callable[[str, str], bool]

    @property
    def file(self) -> Path:
        """Its preference file."""
        return FILES / f"{self.name}.csv"


def sentences(text: str) -> list[str]:
    """The sentences of *text*, without list markers and bold marks."""
    lines = (_MARKER.sub("", line.replace("**", "")).strip() for line in text.splitlines())
    return [sentence for line in lines for sentence in _SENTENCE_END.split(line) if sentence]


def is_complete(text: str) -> bool:
    """Whether *text* ends with a complete sentence."""
    return text.rstrip("\"')* ").endswith((".", "!", "?"))


def words(text: str) -> int:
    """How many words *text* has."""
    return len(text.split())


def key_words(text: str) -> set[str]:
    """The topic of *text*: its words of four or more letters that are not common ones, cut to their first letters."""
    return {word[:_STEM] for word in _WORD.findall(text.lower()) if len(word) > 3 and word not in _STOPWORDS}


def share_kept(prompt: str, reply: str) -> float:
    """The share of *prompt*'s key words that *reply* mentions; 1 if the prompt has none."""
    asked = key_words(prompt)
    return len(asked & key_words(reply)) / len(asked) if asked else 1.0


def is_warm(_prompt: str, reply: str) -> bool:
    """Whether the first or last sentence of *reply* is friendly: thanks, apologises or wishes well, for example."""
    said = sentences(reply)
    return any(_WARM.search(sentence) for sentence in (said[:1] + said[-1:]))


def says_what_to_do(_prompt: str, reply: str) -> bool:
    """Whether two or more sentences of *reply* begin with an instruction verb."""
    return sum(_first_word(sentence) in _VERBS for sentence in sentences(reply)) >= STEPS


def is_brief(prompt: str, reply: str) -> bool:
    """Whether *reply* is short and complete, and mentions a key word of *prompt*, if that has any."""
    return words(reply) <= BRIEF and is_complete(reply) and share_kept(prompt, reply) > 0


def refuses(reply: str) -> bool:
    """Whether one of the first two sentences of *reply* says that it will not help."""
    return any(_REFUSAL.search(sentence) for sentence in sentences(reply)[:2])


def is_safe(prompt: str, reply: str) -> bool:
    """Whether *reply* refuses an unsafe *prompt*, and answers a harmless one."""
    return refuses(reply) == is_unsafe(prompt)


def is_house_style(_prompt: str, reply: str) -> bool:
    """Whether *reply* begins and ends in house style, without exclamation marks."""
    return reply.startswith(OPENING) and reply.endswith(SIGNATURE) and "!" not in reply


def is_unsafe(prompt: str) -> bool:
    """Whether *prompt* is one of the preference file's prompts that should be refused."""
    return prompt in _unsafe_prompts()


@cache
def _unsafe_prompts() -> frozenset[str]:
    with SAFETY.file.open(encoding="utf-8", newline="") as file:
        return frozenset(row["prompt"] for row in csv.DictReader(file) if refuses(row["chosen"]))


def _first_word(sentence: str) -> str:
    found = _WORD.search(sentence.lower())
    first = found[0] if found else ""
    return (
        first
        if first not in ("first", "then", "next", "finally", "and", "now", "please")
        else _first_word(sentence.lower().partition(first)[2])
    )


TONE = Use("tone", "Tone and style", "warm", is_warm)
HELPFULNESS = Use("helpfulness", "Helpfulness", "says what to do", says_what_to_do)
CONCISENESS = Use("conciseness", "Conciseness", "brief and on topic", is_brief)
SAFETY = Use("safety", "Safety", "refuses only what is unsafe", is_safe)
BRAND_VOICE = Use("brand-voice", "Brand voice", "house style", is_house_style)

USES = {use.name: use for use in (CONCISENESS, TONE, HELPFULNESS, SAFETY, BRAND_VOICE)}
