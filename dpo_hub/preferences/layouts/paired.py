"""Layouts that state which reply is chosen and which is rejected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..pairfile import Draft
from ..table import Row
from .columns import Columns, split_words
from .drafts import PromptParts, draft
from .grouped import threaded
from .messages import Part, Unusable, as_messages, listed, part_of
from .rows import Layout, PromptColumns, row_by_row, tools_of
from .verdicts import DirectionUnknown, rating_of


def pairs_layout(
    prompt_columns: PromptColumns,
    chosen: str,
    rejected: str,
    *,
    scores: tuple[str, str] | None = None,
    thread: tuple[str, str] | None = None,
) -> Layout:
    """Chosen and rejected in separate columns.

    *scores* are the columns that rate them, and *thread* the columns that say which row answers which, if they exist.
    """
    name = "one pair a row" if prompt_columns.prompt else "whole chats"

    def pair(number: int, row: Row) -> Iterable[Draft]:
        good, bad = part_of(row.get(chosen), "chosen"), part_of(row.get(rejected), "rejected")
        if scores:
            _require_agreement(row, *scores)
        return (draft(number, prompt_columns.of(row), good, bad),)

    told = {**prompt_columns.columns, "chosen": chosen, "rejected": rejected}
    plain = list(told) == ["prompt", "chosen", "rejected"] and not scores
    layout = Layout(name, told, row_by_row(pair), tuple(told.values()) if plain else ())
    return threaded(layout, *thread) if thread else layout


def _require_agreement(row: Row, good: str, bad: str) -> None:
    try:
        reverse = rating_of(row.get(good)) < rating_of(row.get(bad))
    except Unusable:
        return
    if reverse:
        raise Unusable("a rejected reply with the better score")


def pairs(columns: Columns, sample: Sequence[Row]) -> Layout | None:
    """Chosen and rejected in separate columns, under any of their many names."""
    rejected = columns.find("rejected")
    chosen = columns.find("chosen", without=[rejected])
    if not (chosen and rejected):
        return None
    prompt_columns = PromptColumns.among(columns, taken=(chosen, rejected))
    if not prompt_columns.prompt and not _whole_chats(sample, chosen, rejected):
        return None
    if _are_names(columns, sample, chosen, rejected):
        raise DirectionUnknown(
            f"{chosen!r} and {rejected!r} hold names that other columns have, not replies. Say which columns hold the "
            "better and the worse reply: --map chosen=COLUMN,rejected=COLUMN"
        )
    good, bad = (columns.named(f"score_{part}", f"{part}_score", f"{part}_rating") for part in ("chosen", "rejected"))
    own, parent = columns.named("id"), columns.named("parent_id")
    scores, thread = (good, bad) if good and bad else None, (own, parent) if own and parent else None
    return pairs_layout(prompt_columns, chosen, rejected, scores=scores, thread=thread)


def _are_names(columns: Columns, sample: Sequence[Row], *names: str) -> bool:
    """Whether the cells of *names* are not replies but names of models, which also appear in other columns' names."""
    others = [
        set(split_words(name)) for name in columns.actual.values() if name not in names and len(split_words(name)) > 1
    ]

    def columns_of(cell: object) -> set[int]:
        said = set(split_words(cell)) if isinstance(cell, str) else set()
        return {place for place, other in enumerate(others) if said and said <= other}

    said = [[columns_of(row.get(name)) for name in names] for row in sample if all(row.get(name) for name in names)]
    return bool(said) and all(one and other and one != other for one, other in said)


def _whole_chats(sample: Sequence[Row], *names: str) -> bool:
    """Whether the replies include the prompt, judging by the first readable row."""
    for row in sample:
        try:
            parts = [part_of(row.get(name), name) for name in names]
        except Unusable:
            continue
        if not all(parts):
            continue
        return all(not isinstance(part, str) and any(message["role"] == "user" for message in part) for part in parts)
    return False


def openai(columns: Columns, sample: Sequence[Row]) -> Layout | None:
    """Preferences of OpenAI, Azure, Together and Fireworks: `input.messages` and two outputs."""
    asked, good, bad = columns.named("input"), columns.named("preferred_output"), columns.named("non_preferred_output")
    if not (asked and good and bad):
        return None

    def pair(number: int, row: Row) -> Iterable[Draft]:
        given = row.get(asked)
        inner = given if isinstance(given, dict) else {"messages": given}
        what = PromptParts(part_of(inner.get("messages"), "input"), tools=tools_of(inner.get("tools")))
        return (draft(number, what, part_of(row.get(good), good), part_of(row.get(bad), bad)),)

    told = {"prompt": f"{asked}.messages", "chosen": good, "rejected": bad}
    return Layout("OpenAI preferences", told, row_by_row(pair))


def chats(columns: Columns, sample: Sequence[Row]) -> Layout | None:
    """A list of messages with one or two replies: LLaMA-Factory's ShareGPT, Axolotl, ms-swift."""
    chat = columns.named("conversations", "messages", "conversation")
    rejected = columns.find("rejected", without=[chat]) or columns.named("rejected_messages")
    if not (chat and rejected):
        return None
    chosen = columns.named("chosen", "chosen_response")
    if chosen and (columns.named("prompt") or _whole_chats(sample, chosen, rejected)):
        return None  # UltraFeedback repeats the chosen chat in `messages`
    system = PromptColumns(system=columns.find("system"), tools=columns.named("tools"))

    def pair(number: int, row: Row) -> Iterable[Draft]:
        said = as_messages(part_of(row.get(chat), chat), "user")
        good: Part = part_of(row.get(chosen), "chosen") if chosen else said[-1:]
        asked = system.of(row)._replace(prompt=said if chosen else said[:-1])
        return (draft(number, asked, good, part_of(row.get(rejected), "rejected")),)

    told = {**system.columns, "prompt": chat, "chosen": chosen or f"{chat}[-1]", "rejected": rejected}
    return Layout("chat and replies" if chosen else "chat that ends in the chosen reply", told, row_by_row(pair))


def output_pairs(columns: Columns, sample: Sequence[Row]) -> Layout | None:
    """LLaMA-Factory's old layout: `output` lists the good answer and then the bad one."""
    output = columns.named("output")
    if not output or not any(isinstance(row.get(output), list) for row in sample):
        return None
    prompt_columns = PromptColumns.among(columns, taken=[output])

    def pair(number: int, row: Row) -> Iterable[Draft]:
        answers = listed(row.get(output))
        if len(answers) != 2:
            raise Unusable(f"something other than two answers in {output}")
        return (draft(number, prompt_columns.of(row), part_of(answers[0], "chosen"), part_of(answers[1], "rejected")),)

    return Layout(
        "[good, bad]",
        {**prompt_columns.columns, "chosen": f"{output}[0]", "rejected": f"{output}[1]"},
        row_by_row(pair),
    )
