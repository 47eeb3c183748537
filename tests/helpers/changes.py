"""What a camera may do to an image: each function takes uint8 [height, width, 3] and gives such."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Change = Callable[[Image], Image]


def _rounded(levels: NDArray[np.floating]) -> Image:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def blurred(pixels: float) -> Change:
    """By a Gaussian of this standard deviation."""
    return lambda image: cv2.GaussianBlur(image, (0, 0), pixels)


def compressed(quality: int) -> Change:
    """As a JPEG file of this quality."""

    def change(image: Image) -> Image:
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return cv2.imdecode(data, cv2.IMREAD_COLOR)

    return change


def lit(gain: float) -> Change:
    """More or less light."""
    return lambda image: _rounded(image * gain)


def noisy(levels: float) -> Change:
    """With noise of this standard deviation in grey levels."""
    return lambda image: _rounded(image + np.random.default_rng(0).normal(0, levels, image.shape))


def tinted(red: float, green: float, blue: float) -> Change:
    """With another white balance."""
    return lambda image: _rounded(image * np.array([red, green, blue]))
