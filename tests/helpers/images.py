"""Images that tests make, and files of them.

Textures are noise smoothed, so that a blurred or painted one differs from the rest as it would on a
real surface. Each is its own, given by its seed.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 96


def make_texture(
    seed: int, *, height: int = SIDE, width: int = SIDE, grain: float = 1.5, mean: float = 128.0
) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]: noise of a grain size in pixels around a mean grey level."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), grain)
    levels = mean + 30.0 * smooth / smooth.std()
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def bolt(seed: int) -> NDArray[np.uint8]:
    """A good image of the product that tests add to a run or to a bundle."""
    return make_texture(seed, grain=1.2, mean=150.0)


def write_png(path: Path, image: NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return path


def scratch(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A dark stroke over the image, and its mask (0/255)."""
    side = image.shape[0]
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.line(mask, (side // 4, side // 4), (3 * side // 4, side // 2), 255, max(side // 16, 1))
    return np.where(mask[..., None] > 0, np.uint8(10), image), mask


def flat(level: int | tuple[int, int, int], side: int = 64) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


def write_video(path: Path, images: list[np.ndarray], rate: float = 10.0) -> Path:
    """Motion JPEG, whose frames stand alone: what is cut off damages nothing before it."""
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, (width, height))
    assert writer.isOpened()
    for image in images:
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def read_video(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        found, bgr = capture.read()
        if not found:
            return frames
        frames.append(bgr[..., ::-1])
