"""Versions of a training image: the same part as another camera, lamp or gripper would show it.

A model that saw each part once, in files of one kind, takes the compression of a video or a part
that lies two pixels farther for a defect. So it also learns from versions of each image, whose
strengths are drawn for each image anew. Which kinds and how strong was chosen by what cameras do
(docs/explanation/accuracy.md, "The camera is not the dataset"): a version must stay a good part.

Images are uint8 ``[height, width, 3]``, RGB, as they were read and before they are fitted to the
model. All functions are pure; the same arguments give the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.run.tiling import FrameShape, FrameSize, shape_of

Pixels = NDArray[np.uint8]


def jpeg(image: Pixels, quality: int) -> Pixels:
    """Compress and decode, at a quality from 0 to 100."""
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters)
    return levels(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))


def blurred(image: Pixels, across: float, down: float) -> Pixels:
    """Blur with a Gaussian of these standard deviations in pixels, along x and y."""
    if across <= 0 or down <= 0:
        return image
    return levels(cv2.GaussianBlur(image, (0, 0), sigmaX=across, sigmaY=down))


def brightened(image: Pixels, share: float) -> Pixels:
    """Multiply by ``1 + share``, as a longer exposure does."""
    return rounded(image * (1 + share))


def contrasted(image: Pixels, share: float) -> Pixels:
    """Multiply the difference from the image's mean by ``1 + share``."""
    mean = image.mean()
    return rounded(mean + (image - mean) * (1 + share))


def tinted(image: Pixels, share: float) -> Pixels:
    """Multiply red by ``1 + share`` and blue by ``1 - share``: another white balance."""
    return rounded(image * np.array([1 + share, 1, 1 - share]))


def noisy(image: Pixels, sigma: float, seed: int) -> Pixels:
    """Add Gaussian noise of ``sigma`` levels: to each colour on its own, but a grey image stays so.

    The camera of a grey image has no colours that could differ.
    """
    shape = (*image.shape[:2], 1 if _is_grey(image) else 3)
    noise = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return rounded(image + sigma * noise)


def moved(
    image: Pixels, right: float = 0, down: float = 0, degrees: float = 0, scale: float = 1.0
) -> Pixels:
    """Shift, rotate counter-clockwise about the middle, and enlarge.

    The image is mirrored at its border, where a real camera would see more of the same.

    Args:
        image: uint8 ``[height, width, 3]``.
        right: share of the width.
        down: share of the height.
        degrees: of the rotation.
        scale: 1 leaves the size as it is.
    """
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
    matrix[:, 2] += (right * width, down * height)
    return levels(cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101))


def rounded(values: NDArray[Any]) -> Pixels:
    """Round to whole levels from 0 to 255."""
    return levels(np.rint(values).clip(0, 255))


def levels(image: NDArray[Any]) -> Pixels:
    """Return whole levels as contiguous uint8."""
    return np.ascontiguousarray(image, dtype=np.uint8)


def _is_grey(image: Pixels) -> bool:
    return bool((image == image[..., :1]).all())


class Kind(NamedTuple):
    """What a version differs in."""

    change: Callable[[Pixels, FrameShape, tuple[float, ...]], Pixels]
    """Image, shape of the model's input and drawn strengths -> version."""
    strengths: tuple[tuple[float, float], ...]
    """From which, to which: each drawn evenly."""


def _moved(image: Pixels, _: FrameShape, drawn: tuple[float, ...]) -> Pixels:
    return moved(image, *drawn)


def _compressed(image: Pixels, _: FrameShape, drawn: tuple[float, ...]) -> Pixels:
    return jpeg(image, round(drawn[0]))


def _softer(image: Pixels, shape: FrameShape, drawn: tuple[float, ...]) -> Pixels:
    height, width = image.shape[:2]
    return blurred(image, drawn[0] * width / shape[1], drawn[0] * height / shape[0])


def _lit(image: Pixels, _: FrameShape, drawn: tuple[float, ...]) -> Pixels:
    lit = brightened(contrasted(image, drawn[0]), drawn[1])
    return lit if _is_grey(image) else tinted(lit, drawn[2])


def _noisy(image: Pixels, _: FrameShape, drawn: tuple[float, ...]) -> Pixels:
    return noisy(image, drawn[0], int(drawn[1]))


KINDS: Mapping[str, Kind] = {
    # Shares of the sides, degrees, scale.
    "moved": Kind(_moved, ((-0.03, 0.03), (-0.03, 0.03), (-1.5, 1.5), (0.97, 1.03))),
    "compressed": Kind(_compressed, ((60, 90),)),  # JPEG quality
    "softer": Kind(_softer, ((0.5, 1.25),)),  # standard deviation, pixels of the model's input
    "lit": Kind(_lit, ((-0.15, 0.15), (-0.15, 0.15), (-0.06, 0.06))),  # contrast, light, warmth
    "noisy": Kind(_noisy, ((1, 4), (0, 2**31))),  # standard deviation in levels; seed
}
"""In the order in which versions take turns."""


def version_of(image: Pixels, size: FrameSize, number: int, seed: int) -> Pixels:
    """Return one version of an image.

    Args:
        image: uint8 ``[height, width, 3]``; not changed.
        size: of the model's input in pixels.
        number: of the version: 0 is the image itself, the others take turns through :data:`KINDS`.
        seed: of the image, so that each has strengths of its own.

    Returns:
        uint8 ``[height, width, 3]``.
    """
    if number == 0:
        return image
    kind = list(KINDS.values())[(number - 1) % len(KINDS)]
    rng = np.random.default_rng((seed, number))
    return kind.change(
        image, shape_of(size), tuple(rng.uniform(*between) for between in kind.strengths)
    )
