"""Converts rows to pairs. Each layout has a recogniser; the most specific is tried first. Independent of files.

A recogniser gets the source's columns and its first rows. It returns the layout, or None if it does not match.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..table import Row
from .columns import Columns
from .compared import argilla, compared, label_studio, shp
from .grouped import one_answer_per_row
from .paired import chats, openai, output_pairs, pairs
from .rated import rated_lists, rated_objects, reply_trees, vertex
from .rows import Layout, text_only

Recogniser = Callable[[Columns, Sequence[Row]], Layout | None]

RECOGNISERS: tuple[Recogniser, ...] = (
    openai,
    vertex,
    argilla,
    label_studio,
    reply_trees,
    shp,
    rated_lists,
    rated_objects,
    chats,
    compared,
    pairs,
    output_pairs,
    one_answer_per_row,
)


def recognise(columns: Columns, sample: Sequence[Row]) -> Layout | None:
    """Find the layout of a source with *columns* whose first rows are *sample*.

    Raises:
        DirectionUnknown: there are two answers, and it is not clear which one is chosen.
    """
    found = next((layout for recogniser in RECOGNISERS if (layout := recogniser(columns, sample))), None)
    return text_only(found, columns) if found else None
