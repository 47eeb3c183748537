"""The report's example images: which ones, and as small JPEGs with their heat map."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.heat_map import HeatScale, draw_outlines, heat_overlay
from hvq_edge.data.images import read_image, read_mask
from hvq_edge.errors import ImageError
from hvq_edge.evaluation.image_result import ImageResult

EXAMPLES = 3
_SIDES = (448, 336, 224, 176, 144, 112, 88, 64)
"""Pixels of the longest side; from 448 on, an image is worth being enlarged on a screen."""
_QUALITY = 82


@dataclass(frozen=True)
class Thumbnail:
    """An image and the same with its heat map, as ``data:`` URLs."""

    number: int
    """Another one for each thumbnail of a page."""
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


def heat_scale(results: Sequence[ImageResult], threshold: float | None) -> HeatScale:
    """Choose what the heat colours of a category mean: clear where good images usually are.

    Args:
        results: one category's images.
        threshold: that they are held against, if there is one.
    """
    good = [result.score for result in results if result.image.good]
    return HeatScale(threshold, float(np.median(good)) if good else None)


def thumbnails(
    chosen: Sequence[tuple[ImageResult, HeatScale]], largest_bytes: int
) -> Mapping[ImageResult, Thumbnail]:
    """Make thumbnails as large as fit into a number of bytes together.

    Images that cannot be read any more are left out.

    Args:
        chosen: images with the scale of the heat's colours.
        largest_bytes: of all the URLs; exceeded only where even the smallest size does not fit.
    """
    drawn = [(result, *pair) for result, scale in chosen if (pair := _draw(result, scale))]
    made: dict[ImageResult, Thumbnail] = {}
    for side in _SIDES:
        made = {}
        for number, (result, plain, heated) in enumerate(drawn):
            small, small_heat = _shrink(plain, side), _shrink(heated, side)
            height, width = small.shape[:2]
            urls = _jpeg(small), _jpeg(small_heat)
            made[result] = Thumbnail(number, result, *urls, width, height)
        if sum(len(one.plain) + len(one.heat) for one in made.values()) <= largest_bytes:
            break
    return made


def _draw(
    result: ImageResult, scale: HeatScale
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Return the image and its overlay with the outline of the true defect, if it is known."""
    try:
        plain = _shrink(read_image(result.image.path), _SIDES[0])
    except ImageError:
        return None
    if result.refused is not None:  # nothing rejects it, whatever the threshold
        scale = replace(scale, threshold=None)
    heated = heat_overlay(plain, result.map, result.score, scale)
    if result.image.mask is not None:
        try:
            mask = read_mask(result.image.mask, *plain.shape[:2])
        except ImageError:
            return plain, heated
        outlines, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        draw_outlines(heated, [outline[:, 0] for outline in outlines])
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
