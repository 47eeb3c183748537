"""Frames as small JPEG files for a browser."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.heat_map import heat_overlay
from hvq_edge.errors import OutputError
from hvq_edge.stream.drawing.overlay import heat_range_at
from hvq_edge.stream.sources.source import Image

VIEW_SIDE = 960
"""Pixels: the longest side of a live image."""
REJECT_SIDE = 640
THUMBNAIL_SIDE = 240
_QUALITY = 82


def shrink(image: Image, longest: int) -> Image:
    """Return a copy of at most ``longest`` pixels a side.

    Args:
        image: uint8 ``[h, w, 3]``.
        longest: pixels.
    """
    height, width = image.shape[:2]
    side = max(height, width)
    if side <= longest:
        copied: Image = image.copy()
        return copied
    step = max(side // (2 * longest), 1)  # averaging all pixels of a large frame takes too long
    scale = longest / side
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    coarse = np.ascontiguousarray(image[::step, ::step])
    small: Image = cv2.resize(coarse, size, interpolation=cv2.INTER_AREA)
    return small


def jpeg(
    image: Image, longest: int, heat: NDArray[np.float32] | None, threshold: float | None
) -> bytes:
    """Encode an image, with its heat map where there is one.

    Args:
        image: uint8 ``[h, w, 3]``, RGB.
        longest: pixels of the longest side.
        heat: anomaly map ``[h, w]``; ``None`` for the plain image.
        threshold: anchors the colours; without one there is no heat.

    Raises:
        OutputError: OpenCV cannot encode it.
    """
    shown = shrink(image, longest)
    if heat is not None and threshold is not None and np.isfinite(heat).all():
        shown = heat_overlay(shown, heat, *heat_range_at(threshold))
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), options)
    if not encoded:
        raise OutputError("OpenCV cannot encode an image as JPEG.")
    return bytes(data)
