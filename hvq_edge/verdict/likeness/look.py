"""What an image looks like, whatever it shows: light, focus, noise, compression and colour.

All measures are positive, and compared by their ratio.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_CROP = 256
"""Compression is measured on so many pixels of each side, from the middle: enough block borders."""
_BLOCK = 8
"""Pixels from one border of JPEG's blocks to the next."""
_SMALLEST = 16
"""Pixels of a side; below this there is hardly a block."""
_SECOND_DIFFERENCE = np.array([1, -2, 1], np.float32)
_GREY_LEVEL = 1.0
"""Added to both sides of a ratio of colours, so that black has one."""


class Look(NamedTuple):
    """What one image looks like; all values are above 0."""

    brightness: float
    """Mean grey level, and 1."""
    sharpness: float
    """Mean square of the Laplacian, divided by that of the image at half the size. Light, contrast
    and the kind of product act on both, blur on the first alone."""
    noise: float
    """Standard deviation of the noise in grey levels, as if all detail of a few pixels were noise
    (Immerkaer, "Fast noise variance estimation", 1996), and 0.1."""
    compression: float
    """How much larger steps between pixels are at the borders of JPEG's blocks: 1 is not at all."""
    warmth: float
    """Red to blue."""
    greenness: float
    """Green to the geometric mean of red and blue."""


def look_at(image: NDArray[np.uint8], fitted: NDArray[np.uint8]) -> Look:
    """Measure an image.

    Args:
        image: uint8 ``[height, width, 3]``, RGB, as the camera or the file gave it: of blocks,
            resizing leaves little.
        fitted: the same as ``fit_image`` gives it, which is what the model sees.
    """
    grey = cv2.cvtColor(fitted, cv2.COLOR_RGB2GRAY)
    return look_of(image, fitted, grey, cv2.Laplacian(grey, cv2.CV_16S))


def look_of(
    image: NDArray[np.uint8],
    fitted: NDArray[np.uint8],
    grey: NDArray[np.generic],
    edges: NDArray[np.generic],
) -> Look:
    """Measure an image as :func:`look_at`, given the grey levels of ``fitted`` and their edges.

    Args:
        image: as the camera gave it.
        fitted: as the model sees it.
        grey: its grey levels.
        edges: their Laplacian, int16.
    """
    red, green, blue, _ = (level + _GREY_LEVEL for level in cv2.mean(fitted))
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    kernel = _SECOND_DIFFERENCE
    differences = cv2.sepFilter2D(grey, cv2.CV_16S, kernel, kernel)
    amplitude = cv2.norm(differences, cv2.NORM_L1) / grey.size
    return Look(
        brightness=cv2.mean(grey)[0] + _GREY_LEVEL,
        sharpness=_power(edges) / _power(cv2.Laplacian(half, cv2.CV_16S)),
        noise=amplitude * np.sqrt(np.pi / 2).item() / 6 + 0.1,
        compression=_compression(image),
        warmth=red / blue,
        greenness=green / (red * blue) ** 0.5,
    )


def _power(edges: NDArray[np.generic]) -> float:
    """Return the mean square of a Laplacian, and 0.5: never 0, whatever rounding does."""
    return cv2.norm(edges, cv2.NORM_L2) ** 2 / edges.size + 0.5


def _compression(image: NDArray[np.uint8]) -> float:
    height, width = image.shape[:2]
    if min(height, width) < _SMALLEST:
        return 1.0
    top, left = max(height - _CROP, 0) // 2, max(width - _CROP, 0) // 2
    crop = image[top : top + _CROP, left : left + _CROP]
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    across, down = cv2.absdiff(grey[:, 1:], grey[:, :-1]), cv2.absdiff(grey[1:], grey[:-1])
    return 1.0 + (_block_steps(across, 0) + _block_steps(down, 1)) / 2


def _block_steps(differences: NDArray[np.generic], along: int) -> float:
    """Return by how much steps are larger every eight pixels, relative to all steps; 0 or more.

    Where the blocks begin is not known: a region may have been cut out. The median over all
    borders leaves the edges of the part itself out.
    """
    mean = cv2.reduce(differences, along, cv2.REDUCE_AVG, dtype=cv2.CV_32F)
    steps = np.asarray(mean, np.float32).ravel()
    excess = steps[1:-1] - (steps[2:] + steps[:-2]) / 2
    whole = len(excess) // _BLOCK * _BLOCK
    by_phase = np.sort(excess[:whole].reshape(-1, _BLOCK), axis=0)
    phases = np.sort(by_phase[len(by_phase) // 2])  # of medians
    return float((phases[-1] - phases[_BLOCK // 2]) / (steps.mean() + 0.5))
