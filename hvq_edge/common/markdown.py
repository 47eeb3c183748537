"""Markdown in which no name that others chose can be taken for marks or HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_MARKS = re.compile(r"([\\`*\[\]<>|&])")


def text(value: object) -> str:
    r"""Return a value as one line of plain text.

    Example:
        >>> print(text("bolts <b> | 5*"))
        bolts \<b\> \| 5\*
    """
    line = " ".join(str(value).split())
    printable = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return _MARKS.sub(r"\\\1", printable)


def code(value: str) -> str:
    """Return a name as code, where a backslash would be seen: what cannot stand there is a ``?``.

    Example:
        >>> code("model|1.onnx")
        '`model?1.onnx`'
    """
    return f"`{''.join('?' if c in '`|' or not c.isprintable() else c for c in value)}`"


def bullets(lines: Iterable[str]) -> str:
    """Return a list; its lines are Markdown already."""
    return "\n".join(f"- {line}" for line in lines)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; its cells are Markdown already."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
