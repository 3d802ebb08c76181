"""Interprets verdicts, thumbs and ratings. Never guesses what cannot be known."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .columns import split_words
from .messages import Unusable

SHOWN_CHARACTERS = 20
"""Error messages do not show longer values."""

TIE = "a tie"
UNLABELLED = "no verdict"

_FILLER = frozenset(
    "response answer output model option assistant completion candidate text reply is was the much slightly better "
    "preferred best win wins won winner prefer prefers side human ref".split()
)
_TIES = frozenset("tie tied both equal equally same draw neither none bothbad bothgood similar".split())
_FIRST, _SECOND = frozenset("a left first one".split()), frozenset("b right second two".split())

_ONE_COMMA = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")  # no thousands begin with 0
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_LOOKS = re.compile(r"[\s_\-]+(?=\D)|[\ufe0f\U0001f3fb-\U0001f3ff]")  # separators, and the skin tone of a thumb
_UP = frozenset("true 1 1.0 +1 up yes good positive like liked thumbsup desirable chosen accepted 👍".split())
_DOWN = frozenset("false 0 0.0 -1 down no bad negative dislike disliked thumbsdown undesirable rejected 👎".split())


class DirectionUnknown(Exception):  # noqa: N818  # it becomes a question for the user
    """There are two answers, and nothing says which of them is chosen."""


@dataclass(frozen=True)
class Scale:
    """How the verdicts of a source are interpreted.

    *base* is the number that means the first answer, or None if there are only words. If *a_wins* is given, that value
    means the first answer, and *b_wins* means the second; if *b_wins* is None, any other value does.
    """

    base: int | None = None
    a_wins: str | None = None
    b_wins: str | None = None

    @classmethod
    def of(cls, values: Iterable[Any], side: str) -> Scale | None:
        """Infer the scale from *values*, or return None if they do not determine the direction.

        *side* is the mark of the first answer's column (`columns.Columns.sides`), or empty if that does not help.
        """
        values = list(values)
        seen = {number for value in values if (number := _number_said(value)) is not None}
        if side == "0":
            return cls(0) if seen <= {0, 1} else None
        if side == "1" and not any(map(_is_number, values)):
            return cls(1)  # words alone, and `model_1` is the first of `response_1` and `response_2`
        if not seen:
            return cls()
        if 2 in seen and seen <= {1, 2}:
            return cls(1)
        return cls(0) if seen == {0, 1} and side not in ("", "1") else None

    @classmethod
    def where(cls, a_wins: str, values: Iterable[Any], b_wins: str | None = None) -> Scale | None:
        """Return the scale on which *a_wins* means the first answer and *b_wins* the second.

        Without *b_wins*, the only other value in *values* means the second. Return None if there are several others.
        """
        if b_wins is not None:
            return cls(a_wins=a_wins, b_wins=b_wins)
        said = {normal(value): str(value).strip() for value in values if is_verdict(value)}
        others = [value for key, value in said.items() if key != normal(a_wins)]
        return None if len(others) > 1 else cls(a_wins=a_wins, b_wins=others[0] if others else None)

    def describe(self, column: str, first: str) -> str:
        """Describe *column*, including which of its values means the answer *first* if that is not obvious."""
        value = self.base if self.a_wins is None else self.a_wins
        return column if value is None else f"{column} ({value} is {first})"

    def first_wins(self, value: Any) -> bool:
        """Whether the verdict *value* is for the first answer.

        Raises:
            Unusable: it is a tie, missing, or an unknown word.
            DirectionUnknown: it shows that the numbers do not mean what they seemed to.
        """
        if self.a_wins is not None and normal(value) == normal(self.a_wins):
            return True
        _require_verdict(value)
        if self.a_wins is not None:
            if self.b_wins is not None and normal(value) != normal(self.b_wins):
                raise Unusable(_not_known(value))
            return False
        number = _number_said(value)
        return _by_word(value) if number is None or self.base is None else _by_number(number, self.base)


def is_verdict(value: Any) -> bool:
    """Whether *value* is neither empty nor a tie."""
    try:
        _require_verdict(value)
    except Unusable:
        return False
    return True


def shown(value: Any) -> str:
    """Format *value* for an error message: in brackets if it is short, otherwise empty."""
    text = str(value)
    return f" ({text!r})" if len(text) <= SHOWN_CHARACTERS else ""


def _require_verdict(value: Any) -> None:
    if normal(value) in ("", "nan", "null", "skip", "skipped", "n/a"):
        raise Unusable(UNLABELLED)
    words = [word for word in split_words(str(value)) if word not in _FILLER]
    if (words and words[0] in _TIES) or "".join(words) == "nopreference":
        raise Unusable(TIE)


def _by_word(value: Any) -> bool:
    words = _words(value)
    if words and words <= _FIRST:
        return True
    if words and words <= _SECOND:
        return False
    raise Unusable(_not_known(value))


def _by_number(number: int, base: int) -> bool:
    if number - base not in (0, 1):
        raise DirectionUnknown(
            f"The verdicts are {base}, {base + 1} and {number}, and which one is a tie is not known. Leave the ties "
            "out, and say which value means that the first answer wins: --map a_wins=VALUE"
        )
    return number == base


def _not_known(value: Any) -> str:
    return f"a verdict that is not known{shown(value)}"


def normal(value: Any) -> str:
    """Normalise *value* for comparing verdicts: ignore case, outer spaces and a final `.0`."""
    return str(value if value is not None else "").strip().lower().removesuffix(".0")


def _words(value: Any) -> set[str]:
    """The words of *value* without filler; the "one" of "the left one" is also filler."""
    words = set(split_words(str(value))) - _FILLER
    return words - {"one"} or words


def is_thumb(value: Any) -> bool:
    """Whether *value* can be read as thumbs up or down."""
    return _thumb_word(value) in _UP | _DOWN


def is_up(value: Any) -> bool:
    """Whether *value* is thumbs up.

    Raises:
        Unusable: it is neither up nor down.
    """
    word = _thumb_word(value)
    if word in _UP:
        return True
    if word in _DOWN:
        return False
    raise Unusable(f"a label that is neither up nor down{shown(value)}" if word else UNLABELLED)


def rating_of(value: Any) -> float:
    """Return *value* as a number.

    Raises:
        Unusable: it is not a number, or its comma is ambiguous.
    """
    text = str(value).strip()
    if _ONE_COMMA.fullmatch(text):
        raise Unusable(f"a rating whose comma may be a decimal mark or one of thousands{shown(value)}")
    try:
        number = float(text.replace(",", "") if _THOUSANDS.fullmatch(text) else text.replace(",", "."))
    except ValueError:
        number = float("nan")
    if math.isnan(number):
        blank = value is None or not str(value).strip()
        raise Unusable("no rating" if blank else f"a rating that is no number{shown(value)}")
    return number


def is_rating(value: Any) -> bool:
    """Whether *value* is a number, or text that represents one, even with an ambiguous comma."""
    try:
        rating_of(value)
    except Unusable:
        return bool(_ONE_COMMA.fullmatch(str(value).strip()))
    return not isinstance(value, bool)


def _thumb_word(value: Any) -> str:
    return _LOOKS.sub("", str(value if value is not None else "").strip().lower())


def _number_said(value: Any) -> int | None:
    """The number that *value* is or contains, as in `model_1`."""
    if _is_number(value):
        return int(normal(value))
    words = _words(value)
    return int(word) if len(words) == 1 and re.fullmatch(r"\d{1,3}", word := words.pop()) else None


def _is_number(value: Any) -> bool:
    return bool(re.fullmatch(r"[+-]?\d{1,3}", normal(value)))
