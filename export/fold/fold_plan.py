"""Which maps of codes become tables.

A table has one row for each code of each category it serves. A graph of one category has few rows,
and everything is folded; one of many categories trades megabytes for multiply-adds, and folds what
saves most for its size until :data:`MAX_TABLE_MB` is used up.
"""

from __future__ import annotations

from typing import NamedTuple

from hvq_edge.model.hvq_trans import HVQTrans

MAX_TABLE_MB = 64.0
"""Default for graphs of several categories: room for all of ``edge`` with ten of them.

With five, tables of 31 MB made it 1.12 times as fast on a CPU (docs/folding.md)."""


class Fold(NamedTuple):
    """A map of codes that can be a table."""

    name: str
    """Of the module in :class:`FoldedHVQTrans` whose part it is."""
    bytes: int
    """Of the table, in float32."""
    multiply_adds: int
    """That an image then does without."""
    chosen: bool


def choose_folds(model: HVQTrans, *, one_category: bool, max_table_mb: float) -> list[Fold]:
    """Choose the tables, beside the codes themselves.

    Args:
        model: whose sizes count.
        one_category: the graph serves one category: all are folded.
        max_table_mb: what tables may take together in a graph of several, in 10^6 bytes.

    Returns:
        All candidates, those that save most for their size first.
    """
    settings = model.settings
    tokens, codes, width = settings.grid**2, settings.codes, settings.width
    rows = codes * (1 if one_category else model.categories)
    # Columns of the table, and inputs to each column that need no longer be multiplied.
    candidates = {f"codebooks.{level}": (codes, width) for level in range(settings.layers)}
    if settings.transport_weight:
        candidates["transport"] = (codes, width)
    candidates["decoder.0.self_attention"] = (6 * width, 2 * width)
    for layer in range(settings.layers):
        candidates[f"decoder.{layer}.cross_attention"] = (4 * width, 2 * width)

    folds = [
        Fold(name, 4 * rows * columns, tokens * columns * inputs, one_category)
        for name, (columns, inputs) in candidates.items()
    ]
    folds.sort(key=lambda fold: fold.multiply_adds / fold.bytes, reverse=True)
    if one_category:
        return folds
    left = max_table_mb * 1e6
    planned = []
    for fold in folds:
        chosen = fold.bytes <= left
        left -= fold.bytes if chosen else 0
        planned.append(fold._replace(chosen=chosen))
    return planned
