"""Elements of SVG images, and the scales of their axes: SVG user units, y downwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from html import escape

Place = tuple[float, float]


def document(width: float, height: float, title: str, style: str, parts: Iterable[str]) -> str:
    """Return an SVG document that needs nothing else, on paper of the class ``paper``.

    Args:
        width: of the image.
        height: of the image.
        title: what it shows, for those who do not see it.
        style: CSS.
        parts: its elements, the lowest first.
    """
    frame = tag("svg", viewBox=f"0 0 {width:g} {height:g}", width=width, height=height, role="img")
    head = frame.removesuffix("/>").replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"')
    paper = tag("rect", "paper", width="100%", height="100%")
    content = (f"<title>{escape(title)}</title>", f"<style>{style}</style>", paper, *parts)
    return "\n".join([f"{head}>", *content, "</svg>"]) + "\n"


def tag(name: str, kind: str = "", content: str = "", **attributes: float | str) -> str:
    """Return an element.

    Args:
        name: of the element.
        kind: its class, which the document's style draws; empty: none.
        content: what is in it, as SVG.
        **attributes: numbers are written with one digit after the point; ``_`` stands for ``-``.
    """
    given = {"class": kind, **attributes} if kind else attributes
    words = "".join(f' {key.replace("_", "-")}="{_value(one)}"' for key, one in given.items())
    return f"<{name}{words}>{content}</{name}>" if content else f"<{name}{words}/>"


def line(start: Place, end: Place, kind: str) -> str:
    """Return a straight line."""
    return tag("line", kind, x1=start[0], x2=end[0], y1=start[1], y2=end[1])


def text(place: Place, words: str, kind: str = "", anchor: str = "start") -> str:
    """Return a line of text; ``anchor``: which part of it is at the place."""
    return tag("text", kind, escape(words), x=place[0], y=place[1], text_anchor=anchor)


def dot(place: Place, radius: float, kind: str, said: str) -> str:
    """Return a dot that says something to a pointer over it."""
    title = f"<title>{escape(said)}</title>"
    return tag("circle", kind, title, cx=place[0], cy=place[1], r=radius)


def points(places: Iterable[Place]) -> str:
    """Return places as the ``points`` of a polyline."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def linear(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return an axis: it takes ``low`` to ``start`` and ``high`` to ``end``."""
    return lambda value: start + (end - start) * (value - low) / (high - low)


def round_steps(low: float, high: float, about: int) -> list[float]:
    """Return round numbers from ``low`` to ``high``, about so many: multiples of 1, 2 or 5."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _value(value: float | str) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
