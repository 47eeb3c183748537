"""Limits of usable images, widened by good images that they did not know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hvq_edge.verdict.frame_quality import FrameQuality, fault, learn_limits, measure
from hvq_edge.verdict.image_limits import CategoryLimits, ImageLimits, Placement
from hvq_edge.verdict.likeness.look import Look, look_at
from hvq_edge.verdict.likeness.usual import UsualLook
from hvq_edge.verdict.placement import gain_where_moved, small_grey

Pixels = NDArray[np.uint8]


def widened(
    limits: CategoryLimits, images: Sequence[Pixels], fitted: Sequence[Pixels]
) -> CategoryLimits:
    """Return a category's limits that hold the images as well.

    Where images are inside already nothing moves: wider limits let more be judged that is no part.
    For those outside it is as if the category had been trained on them. Nothing is narrowed.

    Args:
        limits: of the category so far.
        images: good images of it as they were read, uint8 ``[height, width, 3]``, RGB.
        fitted: the same as ``fit_image`` gives them.
    """
    looks = [look_at(image, frame) for image, frame in zip(images, fitted, strict=True)]
    return CategoryLimits(
        image=wider(limits.image, [measure(frame) for frame in fitted]),
        usual=_usual_too(limits.usual, looks),
        placement=limits.placement and _placed(limits.placement, fitted),
    )


def wider(limits: ImageLimits, qualities: Sequence[FrameQuality]) -> ImageLimits:
    """Return limits of light and focus that hold images which are outside so far, too."""
    outside = [quality for quality in qualities if fault(quality, limits) is not None]
    return limits.with_all_of(learn_limits(outside)) if outside else limits


def _usual_too(usual: UsualLook, looks: Sequence[Look]) -> UsualLook:
    """Extend what single images have; median and spread stay those of the training images."""
    changed = {
        name: getattr(usual, name).model_copy(
            update={
                "lowest": min(getattr(usual, name).lowest, *values),
                "highest": max(getattr(usual, name).highest, *values),
            }
        )
        for name, values in zip(Look._fields, zip(*looks, strict=True), strict=True)
    }
    return usual.model_copy(update=changed)


def _placed(placement: Placement, fitted: Sequence[Pixels]) -> Placement:
    gains = [gain_where_moved(small_grey(frame), placement) for frame in fitted]
    highest = max((gain for gain in gains if gain is not None), default=0.0)
    return placement.model_copy(update={"gain_high": max(placement.gain_high, highest)})
