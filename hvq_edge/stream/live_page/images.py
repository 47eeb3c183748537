"""Frames as small JPEG files for a browser, and pictures as PNG files."""

from __future__ import annotations

import cv2
import numpy as np

from hvq_edge.errors import OutputError
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


def jpeg(image: Image) -> bytes:
    """Encode an image.

    Args:
        image: uint8 ``[h, w, 3]``, RGB.

    Raises:
        OutputError: OpenCV cannot encode it.
    """
    return _encoded(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


def png(image: Image) -> bytes:
    """Encode an image without loss; takes and raises what :func:`jpeg` does."""
    return _encoded(".png", image, [])


def _encoded(suffix: str, image: Image, options: list[int]) -> bytes:
    encoded, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not encoded:
        raise OutputError(f"OpenCV cannot encode an image as {suffix}.")
    return bytes(data)
