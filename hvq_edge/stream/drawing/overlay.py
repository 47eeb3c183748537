"""A frame with its decision drawn on it: what a person at the line looks at.

The verdict is a word, a colour and a frame around the image; the heat shows where; the bar shows
how far from the threshold, and what the heat's colours mean. Nothing but the heat covers the part.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.heat_map import (
    HeatScale,
    draw_outlines,
    heat_overlay,
    legend_bar,
    position,
)
from hvq_edge.design.language import current
from hvq_edge.design.palette import palette
from hvq_edge.stream.controls import Controls
from hvq_edge.stream.drawing.lettering import (
    Colour,
    cut_to_width,
    draw_text,
    text_width,
    wrap_to_width,
)
from hvq_edge.stream.sources.source import Frame, Image
from hvq_edge.verdict.decision import Decision
from hvq_edge.verdict.judgement import Verdict

SHORTEST_SIDE = 480
"""Pixels: smaller images are enlarged and padded to this, so that the lettering fits."""
LONGEST_SIDE = 1600
"""Pixels: larger images are reduced to this."""

WORDS: dict[Verdict, str] = {"pass": "PASS", "reject": "REJECT", "no_decision": "NO DECISION"}
_LIGHT, _DARK = palette()["light"], palette()["dark"]
COLOURS: dict[Verdict, Colour] = {verdict: _LIGHT[f"{verdict}-band"] for verdict in WORDS}
_INKS: dict[Verdict, Colour] = {verdict: _LIGHT[f"{verdict}-ink"] for verdict in WORDS}
_PANEL, _TRACK, _TEXT, _MUTED = (_DARK[name] for name in ("ground", "edge", "text", "muted"))


class Overlay:
    """Draws decisions with the thresholds they were made by.

    The last drawing is kept, so several sinks of one decision share it.

    Args:
        thresholds: by category; or the controls that hold those in force.
        typical: what good parts score, by category: where the heat begins.
    """

    def __init__(
        self,
        thresholds: Mapping[str, float] | Controls,
        typical: Mapping[str, float] | None = None,
    ) -> None:
        self._thresholds = thresholds
        self._typical = typical or {}
        self._last: tuple[Decision, Image] | None = None

    def __call__(self, decision: Decision, frame: Frame) -> Image:
        """Return :func:`annotate` of the frame; do not write into it."""
        last = self._last  # read once: another thread may draw meanwhile
        if last is None or last[0] is not decision:
            known = self._thresholds
            thresholds = known.thresholds if isinstance(known, Controls) else known
            category = decision.category or ""
            scale = HeatScale(thresholds.get(category), self._typical.get(category))
            last = (decision, annotate(frame.image, decision, scale))
            self._last = last
        return last[1]


def annotate(
    image: Image | None, decision: Decision, scale: HeatScale, facts: str | None = None
) -> Image:
    """Draw a decision on its image.

    Args:
        image: uint8 ``[h, w, 3]``, RGB, of any size; ``None`` for a lost frame.
        decision: the decision on it.
        scale: of the decision's category.
        facts: what stands at the top right; by default the frame's number and the latency.

    Returns:
        uint8 ``[height, width, 3]``, RGB, both even: the image between a head and a foot strip.
    """
    view = _view(image)
    unit = min(view.shape[:2]) / SHORTEST_SIDE
    if image is not None:
        _draw_part(view, image, decision, scale, unit)
    else:
        _draw_centred(view, current()("no image"), unit)
    if facts is None:
        facts = f"#{decision.frame}   {decision.latency_ms:.1f} ms"
    head = _head(decision, facts, view.shape[1], unit)
    foot = _foot(decision, scale, view.shape[1], unit)
    drawn: Image = np.concatenate([head, view, foot])
    return drawn


def draw_findings(
    image: Image, decision: Decision, scale: HeatScale, size: tuple[int, int], thickness: int = 1
) -> Image:
    """Draw the heat and the outlines of what was rejected.

    Args:
        image: uint8 ``[h, w, 3]``, RGB: the decision's image at any size; it is not changed.
        decision: without a score there is nothing to draw.
        scale: of the decision's category.
        size: height and width of the image that was decided on.
        thickness: of the outlines, in pixels.
    """
    if decision.map is None or decision.score is None or not np.isfinite(decision.map).all():
        return image
    drawn = heat_overlay(image, decision.map, decision.score, scale)
    shrunk = np.array([image.shape[1] / size[1], image.shape[0] / size[0]])
    outlines = [np.rint((r.contour + 0.5) * shrunk - 0.5) for r in decision.regions]
    draw_outlines(drawn, (outline.astype(np.int32) for outline in outlines), thickness)
    return drawn


def place(height: int, width: int) -> tuple[int, int]:
    """Return the size in pixels, height and width, at which an image is shown."""
    wanted = max(1.0, SHORTEST_SIDE / min(height, width))
    scale = min(wanted, LONGEST_SIDE / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _view(image: Image | None) -> Image:
    """Return the empty middle part, even-sized, large enough for the image and the lettering."""
    height, width = place(*image.shape[:2]) if image is not None else (SHORTEST_SIDE, 640)
    sides = [max(side, SHORTEST_SIDE) for side in (height, width)]
    rows, columns = (side + side % 2 for side in sides)
    return np.full((rows, columns, 3), _PANEL, dtype=np.uint8)


def _draw_part(
    view: Image, image: Image, decision: Decision, scale: HeatScale, unit: float
) -> None:
    height, width = place(*image.shape[:2])
    shrinks = height < image.shape[0]
    shown: NDArray[np.uint8] = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    shown = draw_findings(shown, decision, scale, image.shape[:2], max(round(unit), 1))
    top, left = (view.shape[0] - height) // 2, (view.shape[1] - width) // 2
    view[top : top + height, left : left + width] = shown
    edge = max(round(6 * unit), 2)
    colour = COLOURS[decision.verdict]
    view[:edge] = view[-edge:] = colour
    view[:, :edge] = view[:, -edge:] = colour


def _draw_centred(view: Image, text: str, unit: float) -> None:
    height = 20 * unit
    left = (view.shape[1] - text_width(text, height)) / 2
    draw_text(view, text, left, (view.shape[0] + height) / 2, height, _MUTED)


def _head(decision: Decision, facts: str, width: int, unit: float) -> Image:
    """Verdict and category on the left, facts on the right."""
    strip = _strip(44, width, unit)
    word, size, margin = current()(WORDS[decision.verdict]), 13 * unit, 12 * unit
    baseline = (strip.shape[0] + size) / 2
    badge = text_width(word, size, bold=True) + 2 * margin
    strip[:, : round(badge)] = COLOURS[decision.verdict]
    draw_text(strip, word, margin, baseline, size, _INKS[decision.verdict], bold=True)
    small = 10 * unit
    facts = cut_to_width(facts, small, width - badge - 3 * margin)
    right = width - margin - text_width(facts, small)
    draw_text(strip, facts, right, baseline, small, _MUTED)
    room = right - badge - 2 * margin
    category = cut_to_width(decision.category or "", size, room)
    draw_text(strip, category, badge + margin, baseline, size, _TEXT)
    return strip


def _foot(decision: Decision, scale: HeatScale, width: int, unit: float) -> Image:
    """Score against threshold as a bar, the heat's colours under it on the same scale.

    Or the reason why there is no decision.
    """
    threshold, say = scale.threshold, current()
    strip = _strip(56, width, unit)
    margin, size = 12 * unit, 11 * unit
    if decision.verdict == "no_decision" or decision.score is None or threshold is None:
        lines = wrap_to_width(say.sentence(decision.reason), size, width - 2 * margin, 2)
        for number, line in enumerate(lines):
            draw_text(strip, line, margin, (24 + 19 * number) * unit, size, _TEXT)
        return strip
    baseline = 24 * unit
    said = say("score {score}", score=say.number(decision.score))
    draw_text(strip, said, margin, baseline, size, _TEXT)
    limit = say("threshold {threshold}", threshold=say.number(threshold))
    draw_text(strip, limit, width - margin - text_width(limit, size), baseline, size, _MUTED)
    left, right = round(margin), round(width - margin)
    top, bottom = round(34 * unit), round(44 * unit)
    strip[top:bottom, left:right] = _TRACK
    end = left + round(position(decision.score, threshold) * (right - left))
    strip[top:bottom, left:end] = COLOURS[decision.verdict]
    colours = legend_bar(scale, max(round(5 * unit), 1), right - left, _TRACK)
    under = bottom + round(2 * unit)
    end = under + len(colours)
    strip[under:end, left:right] = colours
    middle, half = (left + right) // 2, max(round(unit), 1)
    strip[top - round(4 * unit) : end, middle - half : middle + half] = _TEXT
    return strip


def _strip(height: float, width: int, unit: float) -> Image:
    rows = round(height * unit)
    return np.full((rows + rows % 2, width, 3), _PANEL, dtype=np.uint8)
