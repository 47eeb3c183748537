"""Anomaly maps as images: upsampling, and the overlay a person looks at.

The evaluation report and the stream use the same colours over different ranges: the report shows a
category's maps from its good images to its clear defects, the stream around the threshold in force.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.errors import InputError


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
    enlarged: NDArray[np.float32] = rows @ anomaly_map.astype(np.float32, copy=False) @ columns.T
    return enlarged


def heat_overlay(
    image: NDArray[np.uint8],
    anomaly_map: NDArray[np.floating[Any]],
    low: float,
    high: float,
    opacity: float = 0.75,
) -> NDArray[np.uint8]:
    """Lay an anomaly map over an image: clear where it is normal, glowing where it is not.

    Colour and opacity both grow with the map, so normal regions show the image unchanged and
    the anomaly is visible without telling red from green.

    Args:
        image: uint8 ``[height, width, 3]``, RGB, of any size.
        anomaly_map: floating point ``[h, w]``.
        low: map value at and below which the image shows through unchanged.
        high: map value at and above which the colour is hottest.
        opacity: share of the colour at ``high``, 0 to 1.

    Returns:
        uint8 ``[height, width, 3]``, RGB; ``image`` is not changed.

    Raises:
        InputError: another shape or dtype, ``high`` not above ``low``, a value that is not finite,
            or an opacity outside 0 to 1.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(
            f"cannot draw on an image of {image.dtype} {list(image.shape)}: "
            "expected uint8 [height, width, 3]."
        )
    if anomaly_map.ndim != 2 or not np.isfinite(anomaly_map).all():
        raise InputError("cannot draw an anomaly map that is not [h, w] or not finite everywhere.")
    if not (np.isfinite(low) and np.isfinite(high) and high > low and 0.0 <= opacity <= 1.0):
        raise InputError(
            f"cannot draw an anomaly map from {low} to {high} with opacity {opacity}: expected "
            "low < high and an opacity from 0 to 1."
        )
    height, width = image.shape[:2]
    heat = np.clip((anomaly_map.astype(np.float64) - low) / (high - low), 0.0, 1.0)
    heat_pixels = np.clip(upsample_map(heat, height, width), 0.0, 1.0)
    colours = cv2.applyColorMap((heat_pixels * 255.0).astype(np.uint8), _heat_colours())
    weight = heat_pixels * np.float32(opacity)
    blended: NDArray[np.uint8] = cv2.blendLinear(
        np.ascontiguousarray(image), colours, 1.0 - weight, weight
    )
    return blended


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
def _heat_colours() -> NDArray[np.uint8]:
    """Return uint8 ``[256, 1, 3]``: RGB for each heat, the upper part of OpenCV's turbo map.

    Its lower part is blue and dark: as a tint of a faint anomaly it reads as a shadow.
    """
    levels = np.linspace(120, 235, 256).astype(np.uint8).reshape(256, 1)
    colours: NDArray[np.uint8] = cv2.cvtColor(
        cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB
    )
    return colours
