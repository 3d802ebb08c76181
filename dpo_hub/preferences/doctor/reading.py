"""Splits pairs into words, and decides when two texts say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from ..pairs import Messages, PreferencePair

NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese have no spaces between words, so each character counts as a word."""
_PROSE_MARKS = r"""\s.,;:!?…'"“”‘’‚„«»¿¡()\[\]–—-"""
_WORD = re.compile(rf"[^\W{NO_SPACES}]+|[{NO_SPACES}]|[^\w{_PROSE_MARKS}]")
_NUMBER = re.compile(r"\d+")

JACCARD_THRESHOLD = 0.8
"""Texts whose two-word runs overlap this much (Jaccard) are nearly the same: one word in 17 may differ."""

BOTH_WAYS = 1 | 2
"""Both directions of `Reading.choice`."""


def words(text: str) -> list[str]:
    """The words of *text* in lower case, without punctuation; a symbol such as `+` is a word, as it changes a sum."""
    return _WORD.findall(text.casefold())


def bigrams(found: Sequence[str], mark: str = "") -> set[str]:
    """The two-word runs of *found*, including its beginning and end, each prefixed with *mark*."""
    return {f"{mark}{first} {second}" for first, second in pairwise(["", *found, ""])}


def numbers(text: str) -> list[str]:
    """The numbers in *text*, sorted. Texts with different numbers say different things, however similar they are."""
    return sorted(_NUMBER.findall(text))


def nearly_same(one: str, other: str) -> bool:
    """Whether two texts, with words joined by spaces, have nearly the same words and exactly the same numbers."""
    if one == other:
        return True
    if numbers(one) != numbers(other):
        return False
    a, b = bigrams(one.split(" ")), bigrams(other.split(" "))
    shared = len(a & b)
    return shared >= JACCARD_THRESHOLD * (len(a) + len(b) - shared)


def exact_key(pair: PreferencePair) -> int:
    """A key that is equal for pairs that match exactly."""
    parts = [pair.prompt, pair.chosen, pair.rejected, pair.tools, pair.chat_template_kwargs]
    return hash(json.dumps(parts, ensure_ascii=False))


def choice_of(pair: PreferencePair, texts: Sequence[str]) -> tuple[int, int]:
    """Return a key that is equal for the same two replies to the same prompt, and 1 or 2 for which one is chosen.

    *texts* are the texts of prompt, chosen and rejected in the form to compare. Different tools make it a different
    prompt.
    """
    prompt, chosen, rejected = texts
    asked = prompt, json.dumps([pair.tools, pair.chat_template_kwargs])
    return hash((asked, frozenset((chosen, rejected)))), 1 if chosen < rejected else 2


@dataclass(frozen=True)
class Reading:
    """The text and the words of a pair's prompt, chosen and rejected, shared by all checks.

    The system message is part of the prompt's text but not of its words: many pairs share it, and it does not say what
    they ask.
    """

    pair: PreferencePair
    texts: tuple[str, str, str]
    words: tuple[list[str], list[str], list[str]]

    @classmethod
    def of(cls, pair: PreferencePair) -> Reading:
        """Read *pair*."""
        prompt, chosen, rejected = map(text_with_calls, (pair.prompt, pair.chosen, pair.rejected))
        asked = [message for message in pair.prompt if message["role"] != "system"]
        prompt_without_system = prompt if len(asked) == len(pair.prompt) else text_with_calls(asked)
        return cls(pair, (prompt, chosen, rejected), (words(prompt_without_system), words(chosen), words(rejected)))

    @cached_property
    def normalised(self) -> tuple[str, str, str]:
        """The words joined by spaces: equal for parts that differ only in case, white space and punctuation."""
        prompt, chosen, rejected = self.words
        return " ".join(prompt), " ".join(chosen), " ".join(rejected)

    @property
    def bigrams(self) -> set[str]:
        """The two-word runs of all three parts, with a prefix for each part."""
        prompt, chosen, rejected = self.words
        return bigrams(prompt, "p:") | bigrams(chosen, "c:") | bigrams(rejected, "r:")

    @property
    def choice(self) -> tuple[int, int]:
        """`choice_of` the pair, ignoring case, spaces and punctuation; with a system message, the prompt is exact."""
        prompt, chosen, rejected = self.normalised
        prompt_text = self.texts[0] if self.pair.prompt[0]["role"] == "system" else prompt
        return choice_of(self.pair, (prompt_text, chosen, rejected))


def text_with_calls(messages: Messages) -> str:
    """All text in *messages*, including other content such as tool calls."""
    if len(messages) == 1 and len(messages[0]) == 2:
        return str(messages[0]["content"])
    return "\n".join(
        json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
        for message in messages
        for name, value in message.items()
        if value and name != "role"
    )
