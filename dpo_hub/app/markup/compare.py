"""Votes, and the reward of each token of a reply."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from . import hint, table

if TYPE_CHECKING:
    from ...comparison.lens import Reading

LEGEND = (
    '<p class="legend"><span class="token" style="--worth: 60%">learned to like</span> '
    '<span class="token against" style="--worth: 60%">learned to avoid</span> '
    "the stronger the colour, the more. Hold the pointer over a word for its figure, or open the table.</p>"
)


def result(sentences: Sequence[str]) -> str:
    """The result of the votes."""
    return "".join(f'<p class="note">{escape(sentence)}</p>' for sentence in sentences)


def revealed(left: str, choice: str) -> str:
    """Reveal after a vote which side was which."""
    other = "before" if left == "after" else "after"
    said = {"left": f"the left reply, which was “{left}”", "right": f"the right reply, which was “{other}”"}
    told = f"you chose {said[choice]}" if choice in said else f"no side; the left reply was “{left}”"
    return f'<p class="note" role="status">Your last vote is kept: {told}.</p>'


def readings(read: Sequence[Reading]) -> str:
    """Each reply with its tokens coloured, the best first, and the figures as a table."""
    most = max((abs(worth) for reading in read for worth in reading.rewards), default=0) or 1
    ranked = sorted(enumerate(read, 1), key=lambda both: -both[1].reward)
    return LEGEND + "".join(_reading(number, reading, most) for number, reading in ranked)


def _reading(number: int, reading: Reading, most: float) -> str:
    cut = hint("max_length cut its end off.") if reading.cut else ""
    rows = [
        [token.strip() or "␣", f"{worth:+.3f}"] for token, worth in zip(reading.tokens, reading.rewards, strict=True)
    ]
    return (
        f'<section class="reading-of"><h3>Reply {number}: reward {reading.reward:+.2f}</h3>'
        f'<p class="tokens">{"".join(_token(*one, most) for one in zip(reading.tokens, reading.rewards, strict=True))}'
        f"</p>{cut}<details><summary>The figures as a table</summary>"
        f"{table('Each token, and its reward', ('token', 'reward'), rows)}</details></section>"
    )


def _token(token: str, worth: float, most: float) -> str:
    share = round(60 * abs(worth) / most)
    against = " against" if worth < 0 else ""
    return f'<span class="token{against}" style="--worth: {share}%" title="{worth:+.3f}">{escape(token)}</span>'
