"""The report's example images: which ones, and as small JPEGs with their heat map."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.heat_map import heat_overlay
from hvq_edge.data.images import read_image, read_mask
from hvq_edge.errors import ImageError
from hvq_edge.evaluation.image_result import ImageResult

EXAMPLES = 3
_SIDES = (224, 176, 144, 112, 88, 64)
_QUALITY = 82
_OUTLINE = (255, 255, 255)


@dataclass(frozen=True)
class HeatRange:
    """Map values between which the heat colours run, the same for a whole category."""

    low: float
    high: float


@dataclass(frozen=True)
class Thumbnail:
    """An image and the same with its heat map, as ``data:`` URLs."""

    result: ImageResult
    plain: str
    heat: str
    width: int
    height: int


def examples_of(results: Sequence[ImageResult]) -> dict[str, tuple[ImageResult, ...]]:
    """Choose the images worth looking at: what goes wrong first, and what is clearest.

    Args:
        results: one category's images.

    Returns:
        By heading; headings without images are left out.
    """
    ordered = sorted(results, key=lambda result: result.score)
    good = [result for result in ordered if result.image.good]
    defective = [result for result in ordered if not result.image.good]
    groups = {
        "Good images with the highest scores": good[-EXAMPLES:][::-1],
        "Defective images with the lowest scores": defective[:EXAMPLES],
        "Clearest defects: the highest scores": defective[EXAMPLES:][-EXAMPLES:][::-1],
        "Clearest good images: the lowest scores": good[:-EXAMPLES][:EXAMPLES],
    }
    return {heading: tuple(chosen) for heading, chosen in groups.items() if chosen}


def category_heat_range(results: Sequence[ImageResult]) -> HeatRange:
    """Choose the heat range of a category: clear where good maps are, hottest at clear defects.

    Args:
        results: one category's images, at least one.
    """
    good = [result.map for result in results if result.image.good]
    low = float(np.quantile(np.stack(good or [result.map for result in results]), 0.99))
    peaks = [float(result.map.max()) for result in results if not result.image.good]
    high = float(np.quantile(peaks or [float(result.map.max()) for result in results], 0.75))
    return HeatRange(low, max(high, low + 1e-3 * max(abs(low), 1e-3)))


def thumbnails(
    chosen: Sequence[tuple[ImageResult, HeatRange]], largest_bytes: int
) -> Mapping[ImageResult, Thumbnail]:
    """Make thumbnails as large as fit into a number of bytes together.

    Images that cannot be read any more are left out.

    Args:
        chosen: images with the heat range of their category.
        largest_bytes: of all the URLs; exceeded only where even the smallest size does not fit.
    """
    drawn = [(result, *pair) for result, heat in chosen if (pair := _draw(result, heat))]
    made: dict[ImageResult, Thumbnail] = {}
    for side in _SIDES:
        made = {}
        for result, plain, heated in drawn:
            small, small_heat = _shrink(plain, side), _shrink(heated, side)
            height, width = small.shape[:2]
            made[result] = Thumbnail(result, _jpeg(small), _jpeg(small_heat), width, height)
        if sum(len(one.plain) + len(one.heat) for one in made.values()) <= largest_bytes:
            break
    return made


def _draw(
    result: ImageResult, heat: HeatRange
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Return the image and its overlay with the outline of the true defect, if it is known."""
    try:
        plain = _shrink(read_image(result.image.path), _SIDES[0])
    except ImageError:
        return None
    heated = heat_overlay(plain, result.map, heat.low, heat.high)
    if result.image.mask is not None:
        try:
            mask = read_mask(result.image.mask, *plain.shape[:2])
        except ImageError:
            return plain, heated
        outlines, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        cv2.drawContours(heated, outlines, -1, _OUTLINE, 1, cv2.LINE_AA)
    return plain, heated


def _shrink(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Shrink to a longer side of at most ``side`` pixels, keeping the aspect ratio."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1.0:
        return image
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    shrunk: NDArray[np.uint8] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return shrunk


def _jpeg(image: NDArray[np.uint8]) -> str:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
