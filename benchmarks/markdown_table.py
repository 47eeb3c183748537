"""Tables that a terminal shows in columns and Markdown as a table."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table: the first column to the left, the others to the right.

    >>> print(markdown_table(["a", "b"], [["x", "1.0"], ["long", "2"]]))
    | a    |   b |
    | :--- | --: |
    | x    | 1.0 |
    | long |   2 |
    """
    widths = [
        max(3, *(len(row[column]) for row in [headings, *rows])) for column in range(len(headings))
    ]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [_line(headings, widths), _line(rule, widths), *(_line(row, widths) for row in rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "| " + " | ".join([first, *others]) + " |"
