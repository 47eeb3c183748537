"""Where the defect is: the map above the decision's limit, as contours in the image's pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.heat_map import CELL, upsample_map, window_means

MOST_REGIONS = 20
"""Of one frame, those with the highest peaks: an image of noise must not make endless lines."""


@dataclass(frozen=True, eq=False)
class Region:
    """One connected part of the image that is above the limit."""

    box: tuple[int, int, int, int]
    """Left, top, width and height in pixels of the frame's image."""
    area: float
    """In pixels of the frame's image."""
    area_mm2: float | None
    """In mm²; ``None`` where the size of a pixel is not known."""
    peak: float
    """What the image would score for this region alone: the highest window through it."""
    contour: NDArray[np.int32]
    """Its outline, ``[points, 2]``: x and y in pixels of the frame's image."""

    def to_json(self) -> dict[str, Any]:
        """Return what a line of JSON says of it."""
        return {
            "box": list(self.box),
            "area": round(self.area, 1),
            "area_mm2": None if self.area_mm2 is None else round(self.area_mm2, 4),
            "peak": round(self.peak, 6),
            "contour": self.contour.tolist(),
        }


def find_regions(
    anomaly_map: NDArray[np.float32],
    score: float,
    limit: float,
    height: int,
    width: int,
    mm_per_pixel: float | None = None,
) -> tuple[Region, ...]:
    """Find the regions that made a score exceed its limit.

    The score is the highest 16x16 average of the enlarged map, less the level of the image where
    the model subtracts that. The difference between the two is that level, so ``limit`` plus the
    level is where the map itself crosses the limit. A score above the limit has at least one
    region: no average is above the limit without a pixel that is. Pixels above the limit through
    which no window is (a corner, a speck) had no part in the verdict and are left out.

    Args:
        anomaly_map: float32 ``[side / 16, side / 16]``, finite.
        score: of the same image.
        limit: what the score exceeds: the threshold of its category.
        height: of the frame's image, in pixels.
        width: of the frame's image, in pixels.
        mm_per_pixel: millimetres that one pixel of the frame's image covers.

    Returns:
        The highest peaks first, :data:`MOST_REGIONS` at most; none for a score within the limit.
    """
    if not score > limit:
        return ()
    side = anomaly_map.shape[0] * CELL
    # At the model's own size whatever the camera's: the map knows no finer detail.
    enlarged = upsample_map(anomaly_map, side, anomaly_map.shape[1] * CELL)
    windows = _best_window(enlarged)
    level = float(windows.max()) - score
    # Rounding between two ways to average may lift the level by a hair above the highest pixel.
    bound = min(limit + level, float(np.nextafter(enlarged.max(), -np.inf, dtype=np.float32)))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats((enlarged > bound).view(np.uint8))
    scale = np.array([width / enlarged.shape[1], height / enlarged.shape[0]])
    scores = windows - level
    every = [
        _region(scores, labels, number, boxes[number], scale, mm_per_pixel)
        for number in range(1, count)
    ]
    found = [region for region in every if region.peak > limit]
    if not found:  # the score exceeds the limit by less than float32 can tell
        found = [replace(max(every, key=lambda region: region.peak), peak=score)]
    found.sort(key=lambda region: -region.peak)
    return tuple(found[:MOST_REGIONS])


def _best_window(enlarged: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return for each pixel the highest average of the 16x16 windows that it lies in."""
    half = CELL // 2
    inner = np.full_like(enlarged, -np.inf)  # windows that reach beyond the map do not count
    inner[half : 1 - half, half : 1 - half] = window_means(enlarged)
    ones = np.ones((CELL, CELL), np.uint8)
    best: NDArray[np.float32] = cv2.dilate(
        inner, ones, anchor=(half - 1, half - 1), borderValue=-np.inf
    )
    return best


def _region(
    scores: NDArray[np.float32],
    labels: NDArray[np.int32],
    number: int,
    box: NDArray[np.int32],
    scale: NDArray[np.float64],
    mm_per_pixel: float | None,
) -> Region:
    left, top, columns, rows, pixels = (int(value) for value in box)
    window = (slice(top, top + rows), slice(left, left + columns))
    inside = labels[window] == number
    outlines, _ = cv2.findContours(  # one, as what is connected has one
        inside.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top)
    )
    outline = cv2.approxPolyDP(outlines[0], 0.7, closed=True)[:, 0, :]
    first = np.floor(np.array([left, top]) * scale).astype(int)
    last = np.ceil(np.array([left + columns, top + rows]) * scale).astype(int)
    area = pixels * float(scale[0] * scale[1])
    return Region(
        box=(int(first[0]), int(first[1]), int(last[0] - first[0]), int(last[1] - first[1])),
        area=area,
        area_mm2=None if mm_per_pixel is None else area * mm_per_pixel**2,
        peak=float(scores[window][inside].max()),
        contour=np.rint((outline + 0.5) * scale - 0.5).astype(np.int32),
    )
