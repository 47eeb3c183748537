"""What usable frames of each category look like, learnt from its training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.images import read_frame
from hvq_edge.run.record import ImageRecord
from hvq_edge.verdict.image_limits import FrameQuality, learn_limits
from hvq_edge.verdict.limits import CategoryLimits
from hvq_edge.verdict.placement import learn_placement, small_grey

PLACEMENT_IMAGES = 200
"""Of a category, evenly over its images: a mean needs no more, and each is read again."""


def learn_category_limits(
    data: Path,
    images: Sequence[ImageRecord],
    qualities: Sequence[FrameQuality],
    side: int,
    on_progress: ProgressCallback = silent,
) -> dict[str, CategoryLimits]:
    """Learn the limits of every category that has images.

    Args:
        data: what the images' paths are relative to.
        images: good training images.
        qualities: of each.
        side: of the model's input, in pixels.
        on_progress: called after each image that is read again.

    Raises:
        ImageError: an image cannot be read.
    """
    of_category: Mapping[str, list[int]] = {
        name: [i for i, image in enumerate(images) if image.category == name]
        for name in sorted({image.category for image in images})
    }
    chosen = {name: _spread(indices) for name, indices in of_category.items()}
    total = sum(len(indices) for indices in chosen.values())
    limits, done = {}, 0
    for name, indices in of_category.items():
        smalls = []
        for i in chosen[name]:
            smalls.append(small_grey(read_frame(data / images[i].path, side)))
            done += 1
            on_progress("image limits", done, total)
        limits[name] = CategoryLimits(
            image=learn_limits(qualities[i] for i in indices),
            placement=learn_placement(smalls),
        )
    return limits


def _spread(indices: Sequence[int]) -> list[int]:
    count = min(len(indices), PLACEMENT_IMAGES)
    return [indices[int(k)] for k in np.linspace(0, len(indices) - 1, count)]
