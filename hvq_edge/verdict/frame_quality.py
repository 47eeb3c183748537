"""Is a frame fit to be judged? Brightness, contrast and sharpness against what was learnt.

A lens cap, a failed lamp or a moved focus ring must lead to no decision, not to rejects: it is the
camera that is at fault, not the part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.errors import DatasetError
from hvq_edge.verdict.image_limits import ImageLimits

BLACK, WHITE = 0.0, 255.0
NEAR_BLACK, NEAR_WHITE = 5.0, 250.0
"""Mean grey levels beyond which a frame is black or saturated, unless training images are."""

BRIGHTNESS_MARGIN = 25.0
"""Grey levels by which the brightness range is widened at least. Generous, because a large defect
or a missing part changes the mean as well, and must be rejected, not put down to the lamp."""


@dataclass(frozen=True)
class FrameQuality:
    """What a frame looks like, in 8-bit grey levels; limits are in ``ImageLimits``."""

    brightness: float
    """Mean grey level."""
    contrast: float
    """Standard deviation of the grey level."""
    sharpness: float
    """Variance of the Laplacian (4 neighbours) of the grey level: little of it means blur
    (Pech-Pacheco et al., ICPR 2000)."""


def measure(frame: NDArray[np.uint8]) -> FrameQuality:
    """Measure a frame.

    Args:
        frame: uint8 ``[side, side, 3]``, RGB, as ``fit_image`` gives: the size matters, because
            sharpness depends on it.
    """
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return quality_of(grey, cv2.Laplacian(grey, cv2.CV_16S))


def quality_of(grey: NDArray[np.generic], edges: NDArray[np.generic]) -> FrameQuality:
    """Measure a frame by its grey levels and their Laplacian."""
    mean, deviation = cv2.meanStdDev(grey)
    _, sharpness = cv2.meanStdDev(edges)
    return FrameQuality(
        brightness=float(mean[0, 0]),
        contrast=float(deviation[0, 0]),
        sharpness=float(sharpness[0, 0]) ** 2,
    )


def learn_limits(
    qualities: Iterable[FrameQuality], borne: Iterable[FrameQuality] = ()
) -> ImageLimits:
    """Learn what a usable frame looks like.

    Brightness may leave the range of the training images by half of that range and at least
    :data:`BRIGHTNESS_MARGIN`, up to :data:`NEAR_BLACK` and :data:`NEAR_WHITE`; where training
    images come closer to black or white than these, half of the way that is left. So an all
    black or all white frame stays outside. Contrast may fall to half of the least one seen, and
    sharpness, being a variance, to a quarter. Every training image is inside, and so is every
    version of one that the model has learnt to bear: a lens that is a little softer is no fault.

    Args:
        qualities: of the training images.
        borne: of versions of them.

    Raises:
        DatasetError: there are none.
    """
    seen = list(qualities)
    if not seen:
        raise DatasetError(
            "there are no training images to learn frame limits from.",
            next_step="train with a folder of good images",
        )
    darkest = min(quality.brightness for quality in seen)
    brightest = max(quality.brightness for quality in seen)
    margin = max((brightest - darkest) / 2, BRIGHTNESS_MARGIN)
    everything = [*seen, *borne]
    return ImageLimits(
        brightness_low=min(
            max(darkest - margin, min(NEAR_BLACK, (darkest + BLACK) / 2)),
            *(quality.brightness for quality in everything),
        ),
        brightness_high=max(
            min(brightest + margin, max(NEAR_WHITE, (brightest + WHITE) / 2)),
            *(quality.brightness for quality in everything),
        ),
        contrast_low=min(
            min(quality.contrast for quality in seen) / 2,
            *(quality.contrast for quality in everything),
        ),
        sharpness_low=min(
            min(quality.sharpness for quality in seen) / 4,
            *(quality.sharpness for quality in everything),
        ),
    )


def fault(quality: FrameQuality, limits: ImageLimits) -> str | None:
    """Say why a frame cannot be judged.

    Returns:
        ``None`` for a usable frame, else one of ``black``, ``too dark``, ``saturated``,
        ``too bright``, ``no contrast`` and ``blurred``, a colon, and the measured value with its
        limit. The first of these that holds.
    """
    if quality.brightness < limits.brightness_low:
        word = "black" if quality.brightness <= NEAR_BLACK else "too dark"
        return f"{word}: brightness {quality.brightness:.1f}, at least {limits.brightness_low:.1f}"
    if quality.brightness > limits.brightness_high:
        word = "saturated" if quality.brightness >= NEAR_WHITE else "too bright"
        return f"{word}: brightness {quality.brightness:.1f}, at most {limits.brightness_high:.1f}"
    if quality.contrast < limits.contrast_low:
        return f"no contrast: {quality.contrast:.1f}, at least {limits.contrast_low:.1f}"
    if quality.sharpness < limits.sharpness_low:
        return f"blurred: sharpness {quality.sharpness:.1f}, at least {limits.sharpness_low:.1f}"
    return None
