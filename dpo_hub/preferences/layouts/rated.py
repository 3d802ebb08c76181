"""Layouts with several answers to a prompt in one row, each with a score, a rating or a rank."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from ..pairfile import Draft
from ..table import Row
from .columns import Columns
from .drafts import SAME, PromptParts, draft
from .messages import Part, Unusable, as_messages, listed, objects, part_of
from .rows import Layout, PromptColumns, row_by_row
from .transcripts import ROLES
from .verdicts import TIE, rating_of

NAME = "several answers and their ratings"


def ranked(number: int, prompt_parts: PromptParts, answers: Iterable[tuple[float, Part]]) -> list[Draft]:
    """Pair the best of *answers*, given with their scores (higher is better), with each worse one.

    Raises:
        Unusable: there are fewer than two answers, all are tied, or no two of them make a valid pair.
    """
    known = [(score, answer) for score, answer in answers if answer]
    if len(known) < 2:
        raise Unusable("fewer than two rated answers to a prompt")
    best = max(known, key=lambda scored: scored[0])
    worse = [answer for score, answer in known if score < best[0]]
    if not worse:
        raise Unusable(TIE)
    drafts, reason = [], SAME
    for answer in worse:
        try:
            drafts.append(draft(number, prompt_parts, best[1], answer))
        except Unusable as error:
            reason = str(error)
    if not drafts:
        raise Unusable(reason)
    return drafts


def rated_lists(columns: Columns, sample: Sequence[Row]) -> Layout | None:
    """distilabel: a list of generations and a list of their ratings."""
    answers = columns.named("generations", "responses", "candidates")
    ratings = columns.named("ratings", "scores", "ranks", "ranking")
    if not (answers and ratings) or columns.find("rejected"):
        return None
    prompt_columns = PromptColumns.among(columns, taken=(answers, ratings))
    sign = -1 if "rank" in ratings.lower() else 1

    def pairs(number: int, row: Row) -> Iterable[Draft]:
        texts, scores = listed(row.get(answers)), listed(row.get(ratings))
        if len(texts) != len(scores):
            raise Unusable("not as many ratings as answers")
        return ranked(number, prompt_columns.of(row), _scored(zip(scores, texts, strict=True), sign))

    return Layout(NAME, {**prompt_columns.columns, "chosen and rejected": f"{answers} by {ratings}"}, row_by_row(pairs))


def rated_objects(columns: Columns, sample: Sequence[Row]) -> Layout | None:
    """UltraFeedback's `completions`, Axolotl's `answers`: one list of answers, each with its score or rank."""
    column = columns.named("completions", "answers", "responses", "candidates")
    keys = _rated_keys(sample, column) if column else None
    if not (column and keys) or columns.find("rejected"):
        return None
    text, score = keys
    prompt_columns = PromptColumns.among(columns, taken=[column])

    def pairs(number: int, row: Row) -> Iterable[Draft]:
        answers = ((item.get(score), item.get(text)) for item in objects(row.get(column), column))
        return ranked(number, prompt_columns.of(row), _scored(answers, -1 if score == "rank" else 1))

    told = {**prompt_columns.columns, "chosen and rejected": f"{column}[].{text} by {column}[].{score}"}
    return Layout(NAME, told, row_by_row(pairs))


def _scored(answers: Iterable[tuple[Any, Any]], sign: int) -> list[tuple[float, Part]]:
    """Return the answers with scores where higher is better, skipping those without a score or text."""
    return [
        (sign * rating_of(score), part_of(answer, "an answer"))
        for score, answer in answers
        if answer and score not in (None, "", "N/A")
    ]


def _rated_keys(sample: Sequence[Row], column: str) -> tuple[str, str] | None:
    """Return the keys of the text and the score in a list of rated answers."""
    for row in sample:
        items = listed(row.get(column))
        if items and isinstance(items[0], dict):
            names = Columns(items[0])
            text, score = names.find("answer"), names.named("overall_score", "rating", "score", "rank")
            return (text, score) if text and score else None
    return None


def vertex(columns: Columns, sample: Sequence[Row]) -> Layout | None:
    """Vertex AI: `contents`, and `completions` that each have a score."""
    contents, completions = columns.named("contents"), columns.named("completions")
    system = columns.named("system_instruction", "systeminstruction")
    if not (contents and completions):
        return None

    def pairs(number: int, row: Row) -> Iterable[Draft]:
        told = row.get(system or "")
        part = part_of({**told, "role": "system"} if isinstance(told, dict) else told, "system_instruction")
        before = as_messages(part, "system")
        answers = ((item.get("score"), item.get("completion")) for item in objects(row.get(completions), completions))
        return ranked(number, PromptParts(part_of(row.get(contents), "contents"), before), _scored(answers, 1))

    where = {"prompt": contents, "chosen and rejected": f"{completions}[].score"}
    return Layout("Vertex AI preferences", ({"system": system} if system else {}) | where, row_by_row(pairs))


def reply_trees(columns: Columns, sample: Sequence[Row]) -> Layout | None:
    """Open Assistant: a prompt with ranked replies, which may themselves have replies."""
    prompt = columns.named("prompt")
    if not (prompt and any(isinstance(row.get(prompt), dict) and "replies" in row[prompt] for row in sample)):
        return None

    def pairs(number: int, row: Row) -> Iterable[Draft]:
        tree = row.get(prompt)
        found = list(_branches(number, tree)) if isinstance(tree, dict) else []
        if not found:
            raise Unusable("no message with two ranked replies")
        return found

    where = {"prompt": f"{prompt}.text", "chosen and rejected": f"{prompt}.replies[] by rank"}
    return Layout("tree of ranked replies", where, row_by_row(pairs))


def _branches(number: int, root: dict[str, Any]) -> Iterator[Draft]:
    """Yield the pairs of a tree, depth first and without recursion, so that a tree can be arbitrarily deep."""
    waiting: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [(root, [])]
    while waiting:
        node, before = waiting.pop()
        role = ROLES.get(str(node.get("role", "user")).lower(), "user")
        said = [*before, {"role": role, "content": str(node.get("text") or "")}]
        replies = [reply for reply in listed(node.get("replies")) if isinstance(reply, dict)]
        answers = ((reply.get("rank"), reply.get("text")) for reply in replies if role == "user")
        with suppress(Unusable):  # the rest of the tree may have pairs; a tree without any is reported as a whole
            yield from ranked(number, PromptParts(said), _scored(answers, -1))
        waiting.extend((reply, said) for reply in reversed(replies))
