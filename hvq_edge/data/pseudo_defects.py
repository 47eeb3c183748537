"""Pseudo-defects: drawn or pasted damage on images of good parts, with masks.

Settings chosen by the test images of a benchmark fit those images. Held-out good images
against the same images with pseudo-defects give evidence that needs no test image, and that any
factory can gather for its own product. The idea is CutPaste's (Li et al., CVPR 2021: patches and
scars of the same image) and DRAEM's (Zavrtanik et al., ICCV 2021: other textures blended in under
random shapes); shapes and code are ours. They are not real defects: what they tell is which of two
settings sees a change better, not how well real defects will be found.

All functions are pure, and the same seed gives the same pixels. Sizes are shares of the image's
side, so a seed gives about the same defect at every input size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.errors import InputError

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

VISIBLE = 8.0
"""Grey levels that a pseudo-defect changes on average over its mask, in the channel that changes
most; a draw below is drawn again: a moved patch of a plain background is no defect."""
_DRAWS = 8
_SMALLEST_SIDE = 32
_LINE_SOFTNESS = 0.6


class PseudoDefect(NamedTuple):
    """A damaged image."""

    frame: Pixels
    """uint8 ``[side, side, 3]``."""
    mask: Mask
    """``[side, side]``, true where it was damaged; never empty."""


class _Damage(NamedTuple):
    """What a draw gives: other pixels, how much of them shows, and what counts as damaged."""

    pixels: NDArray[np.float32]
    alpha: NDArray[np.float32]
    mask: Mask


def pseudo_defect(
    frame: Pixels, other: Pixels, kind: str, seed: int | Sequence[int]
) -> PseudoDefect:
    """Damage an image of a good part.

    Args:
        frame: uint8 ``[side, side, 3]``, at least 32 a side; not changed.
        other: uint8 ``[h, w, 3]``: another image, used by kind ``texture``.
        kind: one of :data:`KINDS`.
        seed: of the shape, its place and its look; several numbers count as one seed.

    Returns:
        The damaged image and its mask. No pixel farther than :func:`margin` from the mask is
        changed. On an image without any structure some kinds change nothing.

    Raises:
        InputError: another kind, shape or dtype.
    """
    if kind not in KINDS:
        raise InputError(f"there is no pseudo-defect {kind!r}; there are {', '.join(KINDS)}.")
    for image in (frame, other):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(
                f"an image must be uint8 [h, w, 3]; this is {image.dtype} {list(image.shape)}."
            )
    if frame.shape[0] != frame.shape[1] or frame.shape[0] < _SMALLEST_SIDE:
        raise InputError(
            f"an image to damage must be square and {_SMALLEST_SIDE} pixels a side or more; "
            f"this is {list(frame.shape[:2])}."
        )
    rng = np.random.default_rng(seed)
    best, strongest = None, -1.0
    for _ in range(_DRAWS):
        drawn = _blend(frame, KINDS[kind](frame, other, rng))
        change = np.abs(drawn.frame.astype(np.float32) - frame).max(2)[drawn.mask].mean()
        if change > strongest:
            best, strongest = drawn, float(change)
        if strongest >= VISIBLE:
            break
    assert best is not None
    return best


def large_pseudo_defect(frame: Pixels, other: Pixels, seed: int | Sequence[int]) -> Pixels:
    """Change an image of a good part from a third of it on: its light, sharpness or surface.

    Args:
        frame: uint8 ``[side, side, 3]``; not changed.
        other: of the same shape, whose surface may be laid on.
        seed: of the place and the change.
    """
    rng = np.random.default_rng(seed)
    image, side = frame.astype(np.float32), len(frame)
    kind, up = rng.integers(4), rng.random() < 0.5
    if kind == 0:
        changed = image * (rng.uniform(1.25, 1.6) if up else rng.uniform(0.5, 0.75))
    elif kind == 1:
        changed = cv2.GaussianBlur(image, (0, 0), rng.uniform(3, 8) * side / 224)
    elif kind == 2:
        changed = image * 0.3 + np.rot90(other, 1 + 2 * int(up)) * 0.7
    else:
        changed = image * rng.uniform(0.6, 1.4, 3).astype(np.float32)
    angle, place = rng.uniform(0, 2 * np.pi), np.mgrid[:side, :side] / side
    along = np.cos(angle) * place[0] + np.sin(angle) * place[1]
    mask = (along <= np.quantile(along, rng.uniform(1 / 3, 1))).astype(np.float32)
    soft = cv2.GaussianBlur(mask, (0, 0), 3)[..., None]
    mixed: Pixels = (image + soft * (changed - image)).clip(0, 255).round().astype(np.uint8)
    return mixed


def margin(side: int) -> int:
    """Pixels beyond its mask that a pseudo-defect may touch: edges are soft."""
    return math.ceil(8 * _softness(side)) + 2  # four deviations of twice that, and rounding


def _moved_patch(frame: Pixels, other: Pixels, rng: np.random.Generator) -> _Damage:  # noqa: ARG001
    """A patch from elsewhere in the same image, turned."""
    side = len(frame)
    spot = _spot(rng, side, 0.03, 0.12)
    moved = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-90, 90), 1.0)
    moved[:, 2] += rng.uniform(-0.3, 0.3, 2) * side
    source = cv2.warpAffine(frame, moved, (side, side), borderMode=cv2.BORDER_REFLECT)
    return _Damage(source.astype(np.float32), _soften(spot, _softness(side)), spot)


def _scratch(frame: Pixels, other: Pixels, rng: np.random.Generator) -> _Damage:  # noqa: ARG001
    """A thin bent line, darker or brighter than what it crosses."""
    side = len(frame)
    points = [rng.uniform(0.2, 0.8, 2) * side]
    direction, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.06, 0.25) * side
    for _ in range(6):
        direction += rng.normal(0, 0.25)
        step = np.array([np.cos(direction), np.sin(direction)]) * length / 6
        points.append(points[-1] + step)
    line = np.zeros((side, side), np.uint8)
    width = int(rng.integers(1, max(2, side // 80) + 1))
    cv2.polylines(line, [np.rint(points).astype(np.int32)], False, 1, width)
    pixels = frame + np.float32(rng.choice([-1, 1]) * rng.uniform(25, 80))
    return _Damage(pixels, _soften(line > 0, _LINE_SOFTNESS), line > 0)


def _stain(frame: Pixels, other: Pixels, rng: np.random.Generator) -> _Damage:  # noqa: ARG001
    """A spot of other brightness or colour through which the surface still shows."""
    spot = _spot(rng, len(frame), 0.03, 0.12)
    channels = 3 if rng.random() < 0.5 else 1
    gain = rng.uniform(0.5, 1.5, channels).astype(np.float32)
    pixels = frame * gain + np.float32(rng.uniform(-30, 30))
    opacity = np.float32(rng.uniform(0.5, 1.0))
    return _Damage(pixels, opacity * _soften(spot, _softness(len(frame))), spot)


def _texture(frame: Pixels, other: Pixels, rng: np.random.Generator) -> _Damage:
    """A spot of another image."""
    side = len(frame)
    spot = _spot(rng, side, 0.03, 0.12)
    pixels = cv2.resize(other, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    opacity = np.float32(rng.uniform(0.6, 1.0))
    return _Damage(pixels, opacity * _soften(spot, _softness(side)), spot)


def _deformation(frame: Pixels, other: Pixels, rng: np.random.Generator) -> _Damage:  # noqa: ARG001
    """A part of the image pushed aside: a bend, a dent, a torn edge."""
    side = len(frame)
    spot = _spot(rng, side, 0.06, 0.14)
    shape = _soften(spot, 2 * _softness(side))
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.06) * side
    y, x = np.mgrid[:side, :side].astype(np.float32)
    pushed_x = x + np.float32(np.cos(angle) * distance) * shape
    pushed_y = y + np.float32(np.sin(angle) * distance) * shape
    source = cv2.remap(frame, pushed_x, pushed_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return _Damage(source.astype(np.float32), np.ones_like(shape), spot)


_Draw = Callable[[Pixels, Pixels, np.random.Generator], _Damage]

KINDS: dict[str, _Draw] = {
    "moved patch": _moved_patch,
    "scratch": _scratch,
    "stain": _stain,
    "texture": _texture,
    "deformation": _deformation,
}
"""The kinds of pseudo-defects."""


def _blend(frame: Pixels, damage: _Damage) -> PseudoDefect:
    alpha = damage.alpha[..., None]
    mixed = frame * (1 - alpha) + damage.pixels * alpha
    return PseudoDefect(np.clip(np.rint(mixed), 0, 255).astype(np.uint8), damage.mask)


def _spot(rng: np.random.Generator, side: int, least: float, most: float) -> Mask:
    """An irregular spot, bool ``[side, side]``; its radius is a share of the side."""
    radius = rng.uniform(least, most) * side
    corners = int(rng.integers(5, 9))
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = radius * rng.uniform(0.4, 1.0, corners)
    stretch, turn = rng.uniform(0.3, 1.0, 2), rng.uniform(0, np.pi)
    outline = np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach[:, None] * stretch
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    outline = outline @ rotation + rng.uniform(0.2, 0.8, 2) * side
    spot = np.zeros((side, side), np.uint8)
    cv2.fillPoly(spot, [np.rint(outline).astype(np.int32)], 1)
    return spot > 0


def _softness(side: int) -> float:
    """Standard deviation of the blur of edges, in pixels."""
    return max(0.6, 0.004 * side)


def _soften(mask: Mask, sigma: float) -> NDArray[np.float32]:
    """Blur a mask into an opacity from 0 to 1."""
    softened: NDArray[np.float32] = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma)
    return softened
