"""Common column names: which names mean a prompt, a reply, a verdict or a rating."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

NAMES: dict[str, tuple[str, ...]] = {
    part: tuple(names.split())
    for part, names in {
        "prompt": "prompt instruction question query user_prompt user input user_input user_message user_query "
        "request context history",
        "chosen": "chosen chosen_response chosen_answer chosen_text chosen_output text_chosen response_chosen "
        "answer_chosen accepted accepted_response preferred preferred_response preferred_output preferred_answer "
        "better better_response better_answer pos_answer positive good good_response good_answer winner "
        "answer output response assistant completion text",
        "rejected": "rejected rejected_response rejected_answer rejected_text rejected_output text_rejected "
        "response_rejected answer_rejected dispreferred dispreferred_response dispreferred_output non_preferred_output "
        "worse worse_response worse_answer neg_answer negative bad bad_response bad_answer loser",
        "system": "system system_prompt system_message system_instruction",
        "input": "input context",
        "history": "history",
        "answer": "response completion answer output text reply assistant generation model_response model_output "
        "conversations messages",
        "verdict": "winner preference preferred verdict choice label labels vote better best selected pref "
        "human_preference chosen better_response_id preferred_response better_response result",
        "thumb": "label thumbs thumb feedback kto_tag liked vote is_good thumbs_up rating",
        "rating": "rating score overall_score stars points",
        "rank": "rank ranking",
    }.items()
}
"""The names of each part, most likely first."""

_ANSWER = frozenset(
    "response answer output completion text conversation reply generation ref candidate option message summary".split()
)
_ABOUT = frozenset("score rating rank id is length tokens model name label winner safe better preferred".split())
"""A column with one of these words describes an answer and does not contain one."""
_SIDES = (("a", "b"), ("0", "1"), ("1", "2"), ("left", "right"), ("first", "second"))


SHOWN_COLUMNS = 8


class Columns:
    """The columns of one source. Names are matched regardless of case, spaces, hyphens and a byte order mark."""

    def __init__(self, names: Iterable[str]) -> None:
        self.actual: dict[str, str] = {}
        for name in names:
            self.actual.setdefault(simple(name), name)

    def find(self, part: str, *, without: Iterable[str | None] = ()) -> str | None:
        """The column for *part*, excluding those in *without*."""
        taken = set(without)
        found = (self.actual[name] for name in NAMES[part] if name in self.actual)
        return next((name for name in found if name not in taken), None)

    def named(self, *names: str) -> str | None:
        """The first of *names* that exists, as spelled in the source."""
        return next((self.actual[name] for name in names if name in self.actual), None)

    def spelled(self, name: str) -> str | None:
        """The column that *name* means, regardless of case, spaces and hyphens."""
        return self.actual.get(simple(name))

    def shown(self) -> str:
        """The column names, formatted for messages."""
        names = list(self.actual.values())
        return ", ".join(map(repr, names[:SHOWN_COLUMNS])) + (" …" if len(names) > SHOWN_COLUMNS else "")

    def candidates(self) -> list[str]:
        """The answer columns whose names differ only in a letter or a number; empty if there are fewer than two."""
        families: dict[tuple[str, ...], list[str]] = {}
        for name in self.actual.values():
            said = split_words(name)
            family = tuple("" if len(word) == 1 or word.isdigit() else word for word in said)
            if family.count("") == 1 and _ANSWER & set(said) and not _ABOUT & set(said):
                families.setdefault(family, []).append(name)
        most = max(families.values(), key=len, default=[])
        return most if len(most) > 1 else []

    def sides(self) -> tuple[str, str, str] | None:
        """Two answer columns that differ only in their side, and the first one's side: `a`, `0`, `1`, `left`, `first`.

        The shortest names win, so `response_a` is preferred to `response_a_source`.
        """
        words = {name: split_words(name) for name in self.actual.values()}
        shortest_first = sorted(words.items(), key=lambda item: len(item[1]))
        for first, second in _SIDES:
            for name, said in shortest_first:
                if said.count(first) == 1 and _ANSWER & set(said) and not _ABOUT & set(said):
                    other = [second if token == first else token for token in said]
                    if match := next((match for match in words if words[match] == other), None):
                        return name, match, first
        return None


@cache
def simple(name: str) -> str:
    """Simplify *name* to lower case with underscores: `Chosen Response`, `chosen-response` → `chosen_response`."""
    return re.sub(r"[\s\-]+", "_", str(name).strip().strip("\ufeff").strip().lower())


def is_known(name: str) -> bool:
    """Whether this is a known column name, so that a row of such names is a header."""
    return simple(name) in _ALL or bool(_ANSWER & set(split_words(name)) and set(split_words(name)) & _EITHER_SIDE)


def split_words(name: str) -> list[str]:
    """The words and numbers of *name*: `Response A`, `response1`, `outputB`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(name))
    return re.findall(r"[a-z]+|\d+", spaced.lower())


_BESIDE = frozenset(
    "tools chat_template_kwargs id parent_id images image videos video audios audio score_chosen score_rejected "
    "chosen_score rejected_score chosen_rating rejected_rating".split()
)
"""Names of additional columns that accompany a pair."""
_ALL = _BESIDE.union(*NAMES.values())
_EITHER_SIDE = frozenset(side for pair in _SIDES for side in pair)
