"""Layouts with two answers and a verdict between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, cycle
from shlex import quote
from typing import Any, NamedTuple

from ..pairfile import Draft
from ..table import Row
from .columns import Columns
from .drafts import draft
from .messages import Unusable, listed, objects, part_of
from .rows import Layout, PromptColumns, row_by_row
from .verdicts import SHOWN_CHARACTERS, TIE, UNLABELLED, DirectionUnknown, Scale, is_up, is_verdict, normal, rating_of


class VerdictSource(NamedTuple):
    """The source of a verdict on two answers: *column_names* says which they are, and *first_wins* reads them."""

    column_names: str
    first_wins: Callable[[Row], bool]


def comparison_layout(
    name: str,
    prompt_columns: PromptColumns,
    sides: tuple[str, str],
    verdict_source: VerdictSource,
    *,
    task: Callable[[Row], Row] = lambda row: row,
) -> Layout:
    """Two answers in the columns *sides*; *task* extracts the cells with the prompt and the answers from a row."""

    def pair(number: int, row: Row) -> Iterable[Draft]:
        chosen, rejected = sides if verdict_source.first_wins(row) else sides[::-1]
        cells = task(row)
        if not isinstance(cells, dict):
            raise Unusable("no prompt")
        good, bad = part_of(cells.get(chosen), chosen), part_of(cells.get(rejected), rejected)
        return (draft(number, prompt_columns.of(cells), good, bad),)

    return Layout(
        name,
        {**prompt_columns.columns, "answers": ", ".join(sides), "winner": verdict_source.column_names},
        row_by_row(pair),
    )


def compared(columns: Columns, sample: Sequence[Row]) -> Layout | None:
    """Two answers and a verdict, as A/B tests and arenas log them."""
    found = columns.sides()
    if found is None:
        return None
    *sides, mark = found
    first, second = sides
    taken = [*sides, columns.named("winner"), columns.named("loser")]  # here winner and loser hold no replies
    chosen, rejected = columns.find("chosen", without=taken), columns.find("rejected", without=taken)
    if chosen and rejected and not _names_sides(row.get(chosen) for row in sample):
        return None
    prompt_columns = PromptColumns.among(columns, taken=sides)
    if verdict_source := _one_hot(columns):
        return comparison_layout(
            "A/B test",
            prompt_columns,
            (first, second),
            verdict_source,
            task=_taking_turns(prompt_columns.prompt or "", first, second),
        )
    if verdict_source := _scores(columns, mark):
        return comparison_layout("A/B test", prompt_columns, (first, second), verdict_source)
    verdict = columns.find("verdict", without=sides)
    if verdict is None:
        raise DirectionUnknown(
            f"It has two answers, {first!r} and {second!r}, and no column that says which is better. Say which one is "
            f"chosen: --map {quote(f'chosen={first},rejected={second}')}, or which column has the verdict: "
            "--map winner=COLUMN"
        )
    scale = Scale.of((row.get(verdict) for row in sample), mark)
    if scale is None or _says_nothing(scale, sides, [row.get(verdict) for row in sample]):
        seen = sorted({str(row[verdict])[:SHOWN_CHARACTERS] for row in sample if is_verdict(row.get(verdict))})[:5]
        further = f",b_wins={seen[1]}" if len(seen) > 2 else ""
        example = quote(f"winner={verdict},a_wins={seen[0]}{further}")
        raise DirectionUnknown(
            f"It has two answers, {first!r} and {second!r}, and {verdict!r} ({', '.join(seen)}) does not say "
            f"which value stands for which. Say which one means {first!r}: --map {example}"
        )
    return by_verdict(prompt_columns, first, second, verdict, scale)


def by_verdict(prompt_columns: PromptColumns, first: str, second: str, verdict: str, scale: Scale) -> Layout:
    """Two answers, and the column *verdict* read on *scale*; it may also name the column of the better answer.

    If only the value for the first answer is known, one other value may mean the second; a third raises
    DirectionUnknown.
    """
    met: set[str] = set()

    def first_wins(row: Row) -> bool:
        said = row.get(verdict)
        wins = said == first if said in (first, second) else scale.first_wins(said)
        if not wins and scale.a_wins is not None:
            met.add(normal(said))
            if len(met) > 1:
                raise DirectionUnknown(
                    f"Beside {scale.a_wins!r}, {verdict!r} has {' and '.join(map(repr, sorted(met)))}, and which of "
                    f"them stands for {second!r} is not known. Add b_wins=VALUE to the mapping."
                )
        return wins

    return comparison_layout(
        "A/B test", prompt_columns, (first, second), VerdictSource(scale.describe(verdict, first), first_wins)
    )


def _says_nothing(scale: Scale, sides: list[str], verdicts: list[Any]) -> bool:
    """Whether there are verdicts, but none of them can be interpreted."""
    said = [value for value in verdicts if is_verdict(value)]
    return bool(said) and not any(value in sides or _reads(scale, value) for value in said)


def _reads(scale: Scale, value: Any) -> bool:
    try:
        return scale.first_wins(value) in (True, False)
    except Unusable:
        return False


def _names_sides(values: Iterable[Any]) -> bool:
    """Whether *values* are names such as `A` and `response_b`, and not replies."""
    return all(_reads(Scale(), value) for value in values if is_verdict(value))


def _one_hot(columns: Columns) -> VerdictSource | None:
    """LMSYS: `winner_model_a`, `winner_model_b` and `winner_tie`, one of which is 1."""
    a, b = columns.named("winner_model_a"), columns.named("winner_model_b")
    return VerdictSource(f"{a}, {b}", _higher(a, b)) if a and b else None


def _taking_turns(*names: str) -> Callable[[Row], Row]:
    """LMSYS in Kaggle's format: prompts and answers are lists with one item per turn, written as JSON."""

    def chats(row: Row) -> Row:
        asked, *answers = ([str(turn or "") for turn in listed(row.get(name))] for name in names)
        if not asked or not all(len(said) == len(asked) for said in answers):
            return row
        return row | {names[0]: ""} | {name: _chat(asked, said) for name, said in zip(names[1:], answers, strict=True)}

    return chats


def _chat(asked: Sequence[str], said: Sequence[str]) -> list[dict[str, str]]:
    turns = chain.from_iterable(zip(asked, said, strict=True))
    return [{"role": role, "content": text} for role, text in zip(cycle(("user", "assistant")), turns, strict=False)]


def _scores(columns: Columns, mark: str) -> VerdictSource | None:
    """A score for each answer, if there is no verdict."""
    marks = {"a": "b", "0": "1", "1": "2", "left": "right", "first": "second"}
    for word in ("score", "rating"):
        a, b = columns.named(f"{word}_{mark}"), columns.named(f"{word}_{marks[mark]}")
        if a and b and not columns.find("verdict"):
            return VerdictSource(f"{a}, {b}", _higher(a, b))
    return None


def _higher(first: str, second: str) -> Callable[[Row], bool]:
    def first_wins(row: Row) -> bool:
        one, other = rating_of(row.get(first)), rating_of(row.get(second))
        if one == other:
            raise Unusable(TIE)
        return one > other

    return first_wins


def shp(columns: Columns, sample: Sequence[Row]) -> Layout | None:
    """Stanford SHP: `labels` is 1 if answer A is preferred."""
    asked, first, second = (columns.named(name) for name in ("history", "human_ref_a", "human_ref_b"))
    label = columns.named("labels")
    if not (asked and first and second and label):
        return None
    verdict_source = VerdictSource(f"{label} (1 is {first})", lambda row: is_up(row.get(label)))
    return comparison_layout("Stanford SHP", PromptColumns(asked), (first, second), verdict_source)


def argilla(columns: Columns, sample: Sequence[Row]) -> Layout | None:
    """Argilla: annotators' rankings of two responses, decided by majority."""
    first, second = (columns.named(f"response{n}", f"response_{n}") for n in (1, 2))
    column = columns.named("preference")
    if not (first and second and column and any(listed(row.get(column)) for row in sample)):
        return None

    def first_wins(row: Row) -> bool:
        records = objects(row.get(column), column)
        return _majority(_ranks_first(record) for record in records if record.get("status") != "discarded")

    prompt_columns = PromptColumns.among(columns, taken=(first, second))
    return comparison_layout(
        "Argilla ranking", prompt_columns, (first, second), VerdictSource(f"{column}[].value", first_wins)
    )


def _ranks_first(record: dict[str, Any]) -> bool | None:
    """Whether a record ranks the first response higher: its `value` names the responses, its `rank` their places."""
    match record.get("value"):
        case {"rank": [one, other], "value": [name, second_name]}:
            places = rating_of(one), rating_of(other)
            best = name if places[0] < places[1] else second_name
            return None if places[0] == places[1] else Scale(1).first_wins(best)
    raise Unusable("a ranking that does not rank two responses")


def label_studio(columns: Columns, sample: Sequence[Row]) -> Layout | None:
    """Label Studio: the answers are in `data`, the annotators' selections in `annotations`."""
    data, annotations = columns.named("data"), columns.named("annotations")
    inner = next((row[data] for row in sample if data and isinstance(row.get(data), dict)), None)
    names = Columns(inner or ())
    found = names.sides()
    if not (data and annotations and found):
        return None
    first, second, _ = found
    prompt_columns = PromptColumns.among(names, taken=(first, second))

    def first_wins(row: Row) -> bool:
        return _majority(_selections(objects(row.get(annotations), annotations)))

    verdict_source = VerdictSource(f"{annotations}[].result[].value.selected", first_wins)
    layout = comparison_layout(
        "Label Studio pairwise", prompt_columns, (first, second), verdict_source, task=lambda row: row.get(data) or {}
    )
    layout.columns.update({part: f"{data}.{name}" for part, name in layout.columns.items() if part != "winner"})
    return layout


def _selections(annotations: list[dict[str, Any]]) -> Iterable[bool | None]:
    for annotation in annotations:
        results = [] if annotation.get("was_cancelled") else objects(annotation.get("result"), "result")
        for result in results:
            match result:
                case {"type": "pairwise", "value": {"selected": selected}}:
                    yield {"left": True, "right": False}.get(str(selected))


def _majority(votes: Iterable[bool | None]) -> bool:
    """Whether most of the *votes* are for the first answer; None is a vote for neither.

    Raises:
        Unusable: there are no votes, or there is no majority.
    """
    counts = Counter(votes)
    if not counts:
        raise Unusable(UNLABELLED)
    if counts[True] == counts[False]:
        raise Unusable("annotators who disagree evenly" if counts[True] else TIE)
    return counts[True] > counts[False]
