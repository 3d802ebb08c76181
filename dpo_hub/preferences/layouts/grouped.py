"""Layouts in which several rows make a pair. All their answers are kept in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from shlex import quote
from typing import Any

from ..pairfile import Draft
from ..table import Row, Rows
from .columns import Columns
from .drafts import SAME, PromptParts, draft
from .messages import Part, Unusable, as_messages, is_blank, is_messages, part_of
from .rows import EMPTY, Item, Layout, LeftOut, PromptColumns, Read, is_empty, usable
from .verdicts import SHOWN_CHARACTERS, TIE, DirectionUnknown, is_rating, is_thumb, is_up, rating_of


def one_answer_per_row(columns: Columns, sample: Sequence[Row]) -> Layout | None:
    """One answer a row, with a rating, a rank or a thumb; the answers to a prompt are paired.

    Raises:
        DirectionUnknown: such a column exists, but its values are neither numbers nor thumbs.
    """
    answer = columns.find("answer")
    if answer is None:
        return None
    prompt_columns = PromptColumns.among(columns, taken=[answer])
    chat = not prompt_columns.prompt and any(is_messages(row.get(answer)) for row in sample)
    if not prompt_columns.prompt and not chat:
        return None
    unrecognised: tuple[str | None, Any] | None = None
    for part, fits in (("rating", is_rating), ("rank", is_rating), ("thumb", is_thumb)):
        column = columns.find(part, without=[answer, prompt_columns.prompt])
        values = [row[column] for row in sample if column and not is_blank(row.get(column))]
        if column and _mostly_fit(values, fits):
            return answers_layout(prompt_columns, answer, part, column)
        if example := next((value for value in values if not (is_rating(value) or is_thumb(value))), None):
            unrecognised = unrecognised or (column, example)
    if unrecognised:
        raise DirectionUnknown(
            f"The values of its column {unrecognised[0]!r}, such as {str(unrecognised[1])[:SHOWN_CHARACTERS]!r}, are "
            "neither numbers nor thumbs. Write numbers there, or name the column that has them: --map "
            + quote(f"answer={answer},rating=COLUMN")
        )
    return None


def _mostly_fit(values: Sequence[Any], fits: Callable[[Any], bool]) -> bool:
    """Whether most of *values* fit, and all the numeric ones; a few words may mean that there is no rating."""
    return 2 * sum(map(fits, values)) > len(values) and all(map(fits, filter(is_rating, values)))


def answers_layout(prompt_columns: PromptColumns, answer: str, part: str, column: str) -> Layout:
    """*part* says what *column* holds: a `rating` (higher is better), a `rank` (lower is better) or a `thumb`."""
    used_columns = {**prompt_columns.columns, "answer": answer, part: column}
    if part == "thumb":
        return Layout(
            "thumbs up and down", used_columns, _grouped(prompt_columns, answer, column, is_up, _pair_by_thumb)
        )
    sign = -1.0 if part == "rank" else 1.0
    read = _grouped(prompt_columns, answer, column, lambda cell: sign * rating_of(cell), _pair_by_rating)
    return Layout("rated answers, one a row", used_columns, read)


TIE_WITH_BEST = "a tie with the best answer"
Answer = tuple[int, float, Part]
"""The row of an answer, its score (or whether it is good), and its text or messages."""


def _grouped(
    prompt_columns: PromptColumns,
    answer: str,
    column: str,
    score_of: Callable[[Any], float],
    paired: Callable[[PromptParts, list[Answer]], Iterator[Draft | LeftOut]],
) -> Read:
    def read(rows: Rows) -> Iterator[Draft | LeftOut]:
        groups: dict[str, tuple[PromptParts, list[Answer]]] = {}
        for number, row in rows:
            try:
                prompt_parts, part = _prompt_and_answer(prompt_columns, answer, usable(row))
                score = score_of(usable(row).get(column))
            except Unusable as reason:
                yield LeftOut(number, EMPTY if is_empty(row) else str(reason))
                continue
            groups.setdefault(_key(prompt_parts), (prompt_parts, []))[1].append((number, score, part))
        for prompt_parts, answers in groups.values():
            yield from paired(prompt_parts, answers)

    return read


def _prompt_and_answer(prompt_columns: PromptColumns, answer: str, row: Row) -> tuple[PromptParts, Part]:
    prompt_parts, part = prompt_columns.of(row), part_of(row.get(answer), "answer")
    if not prompt_columns.prompt and not isinstance(part, str):
        prompt_parts, part = prompt_parts._replace(prompt=part[:-1]), part[-1:]
    if not prompt_parts.prompt:
        raise Unusable("no prompt")
    if not part:
        raise Unusable("no answer")
    return prompt_parts, part


def _key(prompt_parts: PromptParts) -> str:
    """A key that is equal for answers to the same prompt, including its tools and everything else."""
    return (
        prompt_parts.prompt
        if isinstance(prompt_parts.prompt, str) and not any(prompt_parts[1:])
        else _serialised(prompt_parts)
    )


def _serialised(prompt_parts: PromptParts) -> str:
    try:
        return json.dumps(prompt_parts, sort_keys=True)
    except (TypeError, ValueError):  # keys that cannot be sorted, or a value that is not JSON, which `draft` reports
        return repr(prompt_parts)


def _pair_by_rating(prompt_parts: PromptParts, answers: list[Answer]) -> Iterator[Draft | LeftOut]:
    """Pair the best answer with each worse one; every row is either in a pair or left out."""
    best = max(answers, key=lambda answer: answer[1])
    why = "fewer than two rated answers to a prompt" if len(answers) < 2 else TIE
    used = False
    for number, score, part in answers:
        if score == best[1]:
            continue
        try:
            yield draft(best[0], prompt_parts, best[2], part)
            used = True
        except Unusable as reason:
            why = str(reason)
            yield LeftOut(number, why)
    for number, score, _ in answers:
        if score == best[1] and not (used and number == best[0]):
            yield LeftOut(number, TIE_WITH_BEST if used else why)


def _pair_by_thumb(prompt_parts: PromptParts, answers: list[Answer]) -> Iterator[Draft | LeftOut]:
    """Pair each good answer with a bad one; the shorter list is repeated as needed."""
    good = [answer for answer in answers if answer[1]]
    bad = [answer for answer in answers if not answer[1]]
    used: set[int] = set()
    why = SAME if good and bad else f"a prompt with {'good' if good else 'bad'} answers only"
    for one, other in islice(zip(cycle(good), cycle(bad), strict=False), max(len(good), len(bad))):
        try:
            yield draft(one[0], prompt_parts, one[2], other[2])
            used |= {one[0], other[0]}
        except Unusable as reason:
            why = str(reason)
    yield from (LeftOut(number, why) for number, *_ in answers if number not in used)


def threaded(layout: Layout, own: str, parent: str) -> Layout:
    """H2O LLM Studio: threads of pairs read by *layout*; *own* and *parent* are the columns of their ids."""

    def read(rows: Rows) -> Iterator[Item]:
        kept = [(number, row) for number, row in rows]
        ids = {_id(row.get(own)): number for number, row in kept if isinstance(row, dict)}
        ids.pop("", None)
        parents = {number: ids.get(_id(row.get(parent))) for number, row in kept if isinstance(row, dict)}
        turns: dict[int, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {}
        found = list(layout.read(iter(kept)))
        for item in found:
            if isinstance(item, Draft):
                turns[item.row] = as_messages(item.prompt, "user"), as_messages(item.chosen, "assistant")
        for item in found:
            yield _prepend_thread(item, turns, parents) if isinstance(item, Draft) else item

    return Layout("threads of pairs", {**layout.columns, "thread": f"{own}, {parent}"}, read)


def _id(cell: Any) -> str:
    """Return an id as text; if some rows have no id, tables write the others as 1.0."""
    return "" if is_blank(cell) else str(cell).strip().removesuffix(".0")


def _prepend_thread(
    item: Draft,
    turns: dict[int, tuple[list[dict[str, Any]], list[dict[str, Any]]]],
    parents: dict[int, int | None],
) -> Draft | LeftOut:
    """Prepend the earlier turns that *item* answers: prompts and chosen replies, back to the start of the thread."""
    before: list[dict[str, Any]] = []
    row, seen = parents.get(item.row), {item.row}
    while row is not None:
        if row in seen:
            return LeftOut(item.row, "a thread that goes in a circle")
        if row not in turns:
            return LeftOut(item.row, "a thread whose earlier turn is left out")
        seen.add(row)
        before = [*turns[row][0], *turns[row][1], *before]
        row = parents.get(row)
    whole = [*before, *as_messages(item.prompt, "user")]
    return item._replace(prompt=whole[:1] + [message for message in whole[1:] if message["role"] != "system"])
