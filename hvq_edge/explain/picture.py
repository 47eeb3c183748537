"""An explanation as one picture: the image with its places numbered, and a row for each place."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.heat_map import draw_outlines
from hvq_edge.design.palette import palette
from hvq_edge.explain.exemplars import PATCH, patch_of
from hvq_edge.explain.explanation import Explanation, Place
from hvq_edge.explain.words import likeness_lines, place_title, share_lines
from hvq_edge.run.tiling import FrameShape
from hvq_edge.stream.drawing.lettering import cut_to_width, draw_text, text_width
from hvq_edge.stream.drawing.overlay import draw_findings
from hvq_edge.stream.sources.source import Image

MOST_ROWS = 5
"""Places of a picture; the page and the JSON have all."""
_SIDE = 480
_ZOOM = 2
_GAP = 16
_LETTER = 11
_LINE = 20
_PAPER, _INK, _SOFT = (palette()["light"][name] for name in ("surface", "text", "muted"))


def numbered(explanation: Explanation) -> Image:
    """Draw heat, outlines and the number of each place on the image.

    Returns:
        uint8 ``[height, width, 3]``, RGB, with a shorter side of 480 pixels.
    """
    result = explanation.result
    assert result.image is not None
    height, width = explanation.size
    scale = _SIDE / min(height, width)
    size = (round(width * scale), round(height * scale))
    view: Image = cv2.resize(result.image, size, interpolation=cv2.INTER_AREA)
    view = draw_findings(view, result.decision, result.scale, (height, width), thickness=2)
    for number, place in enumerate(explanation.places, start=1):
        left, top, across, down = (round(value * scale) for value in place.box)
        if place.region is None:
            corners = [(left, top), (left + across, top)]
            corners += [(left + across, top + down), (left, top + down)]
            draw_outlines(view, [np.array(corners, np.int32)])
        _draw_number(view, number, left, top)
    return view


def draw_explanation(explanation: Explanation) -> Image:
    """Draw an explanation.

    Returns:
        uint8 ``[height, width, 3]``, RGB.
    """
    view = numbered(explanation)
    places = explanation.places[:MOST_ROWS]
    rows = [_row(explanation, number, one) for number, one in enumerate(places, start=1)]
    width = max(view.shape[1], *(row.shape[1] for row in rows))
    parts = [_head(explanation, width), view, *rows]
    canvas: Image = np.concatenate([_widened(part, width) for part in parts])
    return canvas


def _head(explanation: Explanation, width: int) -> Image:
    result = explanation.result
    head = _paper(3 * _LINE, width)
    verdict = f"{result.verdict.replace('_', ' ')}: {result.reason}"
    for line, (text, colour) in enumerate(
        ((verdict, _INK), (f"{result.category}  {Path(result.name).name}", _SOFT)), start=1
    ):
        cut = cut_to_width(text, _LETTER, width - 2 * _GAP)
        draw_text(head, cut, _GAP, line * (_LINE + 4), _LETTER, colour, bold=colour == _INK)
    return head


def _row(explanation: Explanation, number: int, place: Place) -> Image:
    shape, zoomed = explanation.fitted.shape[:2], PATCH * _ZOOM
    shares = share_lines(place)
    found = explanation.exemplars
    columns = [("seen", ["what the image shows"], [_patch(explanation.fitted, place.token, shape)])]
    for one in place.nearest:
        title, *lines = likeness_lines(one)
        shown = [
            _patch(found.pixels(own.image), own.token, shape)
            for own in one.exemplars
            if found is not None
        ]
        columns.append((title, lines, shown))
    below = zoomed + 2 * _LINE
    texts = max(len(lines) for _, lines, _ in columns)
    first = max(text_width(line, _LETTER) for line in (place_title(number, place), *shares))
    height = max(below + texts * _LINE, (len(shares) + 2) * _LINE) + _GAP
    made = [_paper(height, first + 2 * _GAP)]
    draw_text(made[0], place_title(number, place), _GAP, _LINE, _LETTER, _INK, bold=True)
    for line, text in enumerate(shares, start=2):
        draw_text(made[0], text, _GAP, line * _LINE, _LETTER, _SOFT)
    for title, lines, shown in columns:
        patches = max(len(shown), 1) * (zoomed + 4)
        room = max(patches, *(text_width(line, _LETTER) for line in (title, *lines)))
        part = _paper(height, room + _GAP)
        draw_text(part, title, 0, _LINE, _LETTER, _INK, bold=True)
        for place_across, patch in enumerate(shown):
            left = place_across * (zoomed + 4)
            part[_LINE + 8 : _LINE + 8 + zoomed, left : left + zoomed] = patch
        for line, text in enumerate(lines):
            draw_text(part, text, 0, below + line * _LINE, _LETTER, _SOFT)
        made.append(part)
    row: Image = np.concatenate(made, axis=1)
    return row


def _patch(image: Image, cell: int, shape: FrameShape) -> Image:
    patch = patch_of(cell, shape)
    cut = image[patch.top : patch.top + PATCH, patch.left : patch.left + PATCH]
    zoomed: Image = cv2.resize(cut, None, fx=_ZOOM, fy=_ZOOM, interpolation=cv2.INTER_CUBIC)
    left, top = patch.cell_left * _ZOOM, patch.cell_top * _ZOOM
    last = PATCH // 3 * _ZOOM - 1
    corners = [(left, top), (left + last, top), (left + last, top + last), (left, top + last)]
    draw_outlines(zoomed, [np.array(corners, np.int32)])
    return zoomed


def _draw_number(view: Image, number: int, left: int, top: int) -> None:
    letter = 16
    wide = text_width(str(number), letter, bold=True) + 10
    left = min(max(left, 0), view.shape[1] - wide)
    top = min(max(top - letter - 12, 0), view.shape[0] - letter - 12)
    view[top : top + letter + 12, left : left + wide] = _INK
    draw_text(view, str(number), left + 5, top + letter + 6, letter, _PAPER, bold=True)


def _paper(height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _widened(part: Image, width: int) -> Image:
    more = _paper(len(part), width - part.shape[1])
    widened: Image = np.concatenate([part, more], axis=1)
    return widened
