"""Text on images with OpenCV: sized in pixels, cut to a width, in the letters its fonts have."""

from __future__ import annotations

import unicodedata
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
"""RGB."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SPELT = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss"}
)
_SCALE_1_HEIGHT = 22
"""Pixels of a capital letter at font scale 1."""


def ascii_text(text: str) -> str:
    """Return the text in printable ASCII, which is all that OpenCV's stroke fonts can draw.

    German letters are spelt out, other accents are taken off; other letters and control characters
    become ``?``.

    >>> ascii_text("Gehäuse 2 à Châlons")
    'Gehaeuse 2 a Chalons'
    """
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFC", text).translate(_SPELT))
    bare = (letter for letter in decomposed if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" else "?" for letter in bare)


def text_width(text: str, height: float, *, bold: bool = False) -> int:
    """Return the width in pixels of text whose capitals are ``height`` pixels high."""
    scale, thickness = _font(height, bold)
    (width, _), _ = cv2.getTextSize(ascii_text(text), _FONT, scale, thickness)
    return int(width)


def cut_to_width(text: str, height: float, width: float, *, bold: bool = False) -> str:
    """Return the text, shortened with ``...`` where it is wider than ``width`` pixels."""
    text = ascii_text(text)
    if text_width(text, height, bold=bold) <= width:
        return text
    while text and text_width(text + "...", height, bold=bold) > width:
        text = text[:-1]
    return text.rstrip() + "..." if text else ""


def wrap_to_width(text: str, height: float, width: float, lines: int) -> list[str]:
    """Break text at spaces into at most ``lines`` lines; the last is cut where it is too wide."""
    words = ascii_text(text).split()
    wrapped: list[str] = []
    while words and len(wrapped) < lines - 1:
        taken = 1
        while taken < len(words) and text_width(" ".join(words[: taken + 1]), height) <= width:
            taken += 1
        wrapped.append(cut_to_width(" ".join(words[:taken]), height, width))
        words = words[taken:]
    return [*wrapped, cut_to_width(" ".join(words), height, width)] if words else wrapped


def draw_text(
    canvas: NDArray[np.uint8],
    text: str,
    left: float,
    baseline: float,
    height: float,
    colour: Colour,
    *,
    bold: bool = False,
) -> None:
    """Draw text on a canvas, in place.

    Args:
        canvas: uint8 ``[h, w, 3]``, RGB.
        text: one line; see :func:`ascii_text`.
        left: where it begins, in pixels.
        baseline: the row its letters stand on.
        height: of a capital letter, in pixels.
        colour: RGB.
        bold: draw thicker strokes.
    """
    scale, thickness = _font(height, bold)
    origin = (round(left), round(baseline))
    any_canvas: Any = canvas
    cv2.putText(any_canvas, ascii_text(text), origin, _FONT, scale, colour, thickness, cv2.LINE_AA)


def _font(height: float, bold: bool) -> tuple[float, int]:
    """Return font scale and stroke thickness for capitals of ``height`` pixels."""
    return height / _SCALE_1_HEIGHT, max(1, round(height / (7.0 if bold else 11.0)))
