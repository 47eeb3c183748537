"""Anomaly maps as images: upsampling, and the overlay that a person looks at.

One function decides the colours, :func:`heat_overlay`, for the line, the live page and the reports.
They are on the scale of the score: each pixel shows what the image would score for the window
around it alone, so what is red is what rejects, and an image that passes has no red.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.errors import InputError

CELL = 16
"""Pixels of the model's input that one cell of the map covers, and the side of the window over
which the score averages (docs/explanation/architecture.md, "The graph's contract")."""
_LAST_UNRED = 127
"""Of the 256 heats: those above are red, and mean a score above the threshold."""
_MOST_OPAQUE = 0.75
# What is merely unusual goes from yellow to orange, what rejects from red to pink: told apart by
# their lightness too. Nothing is blue or dark, which as a tint would read as a shadow of the part.
_UNUSUAL = ((255, 226, 60), (255, 150, 0))
_REJECTS = ((214, 8, 24), (255, 0, 90))
_DARK, _LIGHT = (12, 14, 18), (255, 255, 255)


@dataclass(frozen=True)
class HeatScale:
    """What the heat colours of a category mean; in the scores of its precision."""

    threshold: float | None
    """The first red is just above it. ``None``: nothing is known to reject, so nothing is red."""
    typical: float | None = None
    """What good parts score: up to there the image shows through unchanged. ``None``, or one that
    is not below the threshold: half the threshold's size below the threshold."""

    def __post_init__(self) -> None:
        if not all(np.isfinite(value) for value in (self.threshold, self.typical) if value):
            raise InputError(f"cannot draw heat on a scale that is not finite: {self}.")

    @property
    def span(self) -> float:
        """How far below and above the threshold bars and legends reach."""
        size = abs(self.threshold or 0.0)
        return size if size > 1e-6 else 1.0

    def heats(self, scores: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
        """Return the heat of scores, of any shape: 0 clear, up to 127 unusual, above red."""
        if self.threshold is None:
            low = float(scores.min()) if self.typical is None else self.typical
            high = float(scores.max())
            share = (scores - low) / max(high - low, 1e-9)
            unred: NDArray[np.uint8] = (np.clip(share, 0.0, 1.0) * _LAST_UNRED).astype(np.uint8)
            return unred
        low = self.threshold - 0.5 * self.span
        if self.typical is not None and self.typical < self.threshold:
            low = self.typical
        below = (scores - low) * (_LAST_UNRED / max(self.threshold - low, 1e-6 * self.span))
        above = _LAST_UNRED + 1 + (scores - self.threshold) * (_LAST_UNRED / self.span)
        heats: NDArray[np.uint8] = np.where(
            scores > self.threshold,
            np.clip(above, _LAST_UNRED + 1, 255),
            np.clip(below, 0, _LAST_UNRED),
        ).astype(np.uint8)
        return heats


def position(score: float, threshold: float) -> float:
    """Return where a score stands on a bar or legend, 0 to 1; the threshold stands at 0.5."""
    span = HeatScale(threshold).span
    return float(np.clip(0.5 + 0.5 * (score - threshold) / span, 0.0, 1.0))


def upsample_map(
    anomaly_map: NDArray[np.floating[Any]], height: int, width: int
) -> NDArray[np.float32]:
    """Enlarge anomaly maps bilinearly with aligned corners, as the paper does before scoring.

    Equals ``torch.nn.functional.interpolate(mode="bilinear", align_corners=True)``. Note that
    ``cv2.resize`` aligns pixel edges instead, which shifts a 14x14 map by up to 8 of 224 pixels.

    Args:
        anomaly_map: floating point ``[..., h, w]``, at least 1x1.
        height: rows to enlarge to, in pixels.
        width: columns to enlarge to, in pixels.

    Returns:
        float32 ``[..., height, width]``.

    Raises:
        InputError: fewer than two axes, or an empty map or target.
    """
    if anomaly_map.ndim < 2 or 0 in anomaly_map.shape[-2:] or height < 1 or width < 1:
        raise InputError(
            f"cannot enlarge a map of shape {list(anomaly_map.shape)} to {height}x{width}: "
            "expected [..., h, w] and sizes of at least 1."
        )
    rows = _interpolation_matrix(anomaly_map.shape[-2], height)
    columns = _interpolation_matrix(anomaly_map.shape[-1], width)
    maps = anomaly_map.astype(np.float32, copy=False).reshape(-1, *anomaly_map.shape[-2:])
    enlarged = np.empty((len(maps), height, width), np.float32)
    for number, one in enumerate(maps):
        # Not NumPy's product: its threads spin beside those of the engine, for milliseconds.
        taller = cv2.gemm(rows, one, 1.0, None, 0.0)
        enlarged[number] = cv2.gemm(taller, columns, 1.0, None, 0.0, flags=cv2.GEMM_2_T)
    return enlarged.reshape(*anomaly_map.shape[:-2], height, width)


def window_means(enlarged: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average an enlarged map over every 16x16 window that lies in it.

    Args:
        enlarged: float32 ``[height, width]``, both at least 16.

    Returns:
        float32 ``[height - 15, width - 15]``; the largest of these is the score of a model that
        takes no level off.
    """
    averaged = cv2.boxFilter(enlarged, -1, (CELL, CELL), borderType=cv2.BORDER_REPLICATE)
    half = CELL // 2  # of a window, the mean stands at its pixel [8, 8]
    means: NDArray[np.float32] = averaged[half : 1 - half, half : 1 - half]
    return means


def score_map(anomaly_map: NDArray[np.floating[Any]], score: float) -> NDArray[np.float32]:
    """Return what an image would score for the window around each pixel alone.

    The score is the highest window of the map, less what the model takes off for the whole image.
    The difference between the two is therefore taken off every window.

    Args:
        anomaly_map: floating point ``[h, w]``, finite.
        score: of the same image, finite.

    Returns:
        float32 ``[16 h, 16 w]``, the pixels of the model's input. Its highest value is the score.
        Pixels at the edge, around which no window fits, have the value of the nearest that does.
    """
    height, width = (side * CELL for side in anomaly_map.shape)
    means = window_means(upsample_map(anomaly_map, height, width))
    scores = means + np.float32(score - float(means.max()))
    half = CELL // 2
    return np.pad(np.minimum(scores, np.float32(score)), (half, half - 1), mode="edge")


def heat_overlay(
    image: NDArray[np.uint8],
    anomaly_map: NDArray[np.floating[Any]],
    score: float,
    scale: HeatScale,
) -> NDArray[np.uint8]:
    """Lay an anomaly map over an image: clear where it is normal, red where it rejects.

    Colour and opacity both grow with the map, so normal regions show the image unchanged and
    the anomaly is visible without telling red from green.

    Args:
        image: uint8 ``[height, width, 3]``, RGB, of any size.
        anomaly_map: floating point ``[h, w]``.
        score: of the image: red is drawn if, and only where, it is above ``scale.threshold``.
        scale: what the colours mean.

    Returns:
        uint8 ``[height, width, 3]``, RGB; ``image`` is not changed.

    Raises:
        InputError: another shape or dtype, or a value that is not finite.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(
            f"cannot draw on an image of {image.dtype} {list(image.shape)}: "
            "expected uint8 [height, width, 3]."
        )
    if anomaly_map.ndim != 2 or not (np.isfinite(anomaly_map).all() and np.isfinite(score)):
        raise InputError("cannot draw an anomaly map that is not [h, w] or not finite everywhere.")
    heats = scale.heats(score_map(anomaly_map, score))
    if scale.threshold is not None and not score > scale.threshold:
        heats = np.minimum(heats, _LAST_UNRED)  # float32 may put a score beyond its threshold
    heats = cv2.resize(heats, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colours, opacities = _heat_colours()
    weight = cv2.LUT(heats, opacities)
    blended: NDArray[np.uint8] = cv2.blendLinear(
        np.ascontiguousarray(image), cv2.applyColorMap(heats, colours), 1.0 - weight, weight
    )
    return blended


def legend_bar(
    scale: HeatScale, height: int, width: int, ground: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Draw the colours as a bar that a score's bar fits under.

    Args:
        scale: with a threshold, which stands in the middle; see :func:`position`.
        height: pixels.
        width: pixels.
        ground: RGB that shows through where the heat is clear.

    Returns:
        uint8 ``[height, width, 3]``, RGB.
    """
    middle = scale.threshold or 0.0
    along = np.linspace(middle - scale.span, middle + scale.span, width)
    heats = scale.heats(along)
    colours, opacities = _heat_colours()
    weight = opacities[heats][:, None]
    bar = np.array(ground) * (1.0 - weight) + colours[heats, 0] * weight
    return np.repeat(np.rint(bar).astype(np.uint8)[None], height, axis=0)


def legend_gradient() -> str:
    """Return the colours as a CSS gradient: clear, the threshold in the middle, hottest."""
    colours, opacities = _heat_colours()
    ends = ((0, 0), (64, 25), (_LAST_UNRED, 50), (_LAST_UNRED + 1, 50), (255, 100))
    stops = [
        f"rgb({' '.join(map(str, colours[heat, 0]))} / {opacities[heat]:.0%}) {place}%"
        for heat, place in ends
    ]
    return f"linear-gradient(to right, {', '.join(stops)})"


def draw_outlines(
    image: NDArray[np.uint8], outlines: Iterable[NDArray[np.int32]], thickness: int = 1
) -> None:
    """Draw closed lines into an image: light between dark edges, so seen on any part.

    Args:
        image: uint8 ``[h, w, 3]``, RGB, contiguous; it is changed.
        outlines: each ``[points, 2]``, x and y in pixels of this image.
        thickness: of the light line, in pixels.
    """
    drawn = list(outlines)
    for wide, colour in ((thickness + 2, _DARK), (thickness, _LIGHT)):
        cv2.polylines(image, drawn, True, colour, wide, cv2.LINE_AA)


@lru_cache(maxsize=64)
def _interpolation_matrix(source: int, target: int) -> NDArray[np.float32]:
    """Return float32 ``[target, source]``: row ``i`` weighs the two samples around output ``i``."""
    position = np.linspace(0.0, source - 1.0, target) if target > 1 else np.zeros(1)
    below = np.minimum(position.astype(np.int64), max(source - 2, 0))
    above = np.minimum(below + 1, source - 1)
    share = position - below
    matrix = np.zeros((target, source), dtype=np.float64)
    rows = np.arange(target)
    np.add.at(matrix, (rows, below), 1.0 - share)
    np.add.at(matrix, (rows, above), share)
    result = matrix.astype(np.float32)
    result.setflags(write=False)  # shared by all callers through the cache
    return result


@lru_cache(maxsize=1)
def _heat_colours() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return for each heat its RGB, uint8 ``[256, 1, 3]``, and opacity, float32 ``[256]``."""
    runs = [
        np.linspace(first, last, _LAST_UNRED + 1, dtype=np.float32)
        for first, last in (_UNUSUAL, _REJECTS)
    ]
    colours = np.rint(np.concatenate(runs)).astype(np.uint8)[:, None]
    opacities = np.linspace(0.0, _MOST_OPAQUE, _LAST_UNRED + 1, dtype=np.float32)
    opacities = np.concatenate([opacities, np.full(_LAST_UNRED + 1, _MOST_OPAQUE, np.float32)])
    return colours, opacities
