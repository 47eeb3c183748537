"""What usable frames of each category look like, learnt from its training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hvq_edge.run.record import ImageRecord
from hvq_edge.verdict.frame_quality import FrameQuality, learn_limits
from hvq_edge.verdict.image_limits import CategoryLimits
from hvq_edge.verdict.likeness.look import Look
from hvq_edge.verdict.likeness.usual import learn_usual
from hvq_edge.verdict.placement import learn_placement

PLACEMENT_IMAGES = 200
"""Images taken evenly from a category: a mean needs no more."""


@dataclass(frozen=True)
class FrameLooks:
    """What the limits of usable frames are learnt from, measured where a frame is in hand."""

    qualities: list[FrameQuality]
    looks: list[Look]
    greys: NDArray[np.uint8]
    """``[images, 56, 56]``: :func:`hvq_edge.verdict.placement.small_grey` of each frame."""


def learn_category_limits(
    images: Sequence[ImageRecord],
    looks: FrameLooks,
    borne: Mapping[str, Sequence[FrameQuality]],
) -> dict[str, CategoryLimits]:
    """Learn the limits of every category that has images.

    Args:
        images: good training images.
        looks: of each.
        borne: qualities of versions of them, by category.
    """
    limits = {}
    for name in sorted({image.category for image in images}):
        own = [i for i, image in enumerate(images) if image.category == name]
        spread = np.linspace(0, len(own) - 1, min(len(own), PLACEMENT_IMAGES)).astype(int)
        limits[name] = CategoryLimits(
            image=learn_limits((looks.qualities[i] for i in own), borne.get(name, ())),
            usual=learn_usual([looks.looks[i] for i in own]),
            placement=learn_placement([looks.greys[own[k]].astype(np.float32) for k in spread]),
        )
    return limits
