"""Does the part lie where it lay in the training images? Only where these all lie alike.

A camera that was knocked shows good parts in the wrong place, and the model, which knows positions,
rejects them all. Where training images of a category are registered (a fixture holds the part),
a frame that matches their mean much better somewhere else than in its place was taken by a camera
that has moved. Where parts lie anyhow (screws on a table, pieces of a surface) nothing of the kind
can be learnt, and there is no such check.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.verdict.image_limits import Placement

SIDE = 56
"""Pixels of the reference: enough to place a part to 2 % of the image."""
REACH = 12
"""Pixels by which a frame is shifted at most: about a fifth of the image."""
LEAST_IMAGES = 20
MOVED_SHARE = 0.12
"""Of the image's side: the check is kept only where it finds images shifted so far."""
LEAST_SHIFT = 0.05
"""Of the side: what is less is no fault of the camera's."""
FOUND = 0.95
"""Share of shifted training images that must be found, else there is no check."""
MARGIN = 3.0
"""The limit over the largest gain seen in good images."""
LEAST_LIMIT = 0.1
LIKENESS = 0.7
"""Of the worst match of a good image: what matches less, wherever it lies, is another part."""


def small_grey(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a frame as the reference sees it.

    Args:
        frame: uint8 ``[side, side, 3]``, RGB, as ``fit_image`` gives.

    Returns:
        float32 ``[56, 56]``, grey levels.
    """
    return small_of(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))


def small_of(grey: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return :func:`small_grey` of a frame whose grey levels are known."""
    small: NDArray[np.float32] = cv2.resize(
        grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA
    ).astype(np.float32)
    return small


def learn_placement(smalls: Sequence[NDArray[np.float32]]) -> Placement | None:
    """Learn where a category's parts lie.

    Args:
        smalls: good training images, :func:`small_grey` of each.

    Returns:
        ``None`` where there are too few, or where shifting them by :data:`MOVED_SHARE` of the side
        could not be told from how they lie anyway.
    """
    if len(smalls) < LEAST_IMAGES:
        return None
    mean = np.mean([_standardised(small) for small in smalls], axis=0)
    low, high = float(mean.min()), float(mean.max())
    if high - low < 1e-6:
        return None
    reference = np.rint((mean - low) / (high - low) * 255.0).astype(np.uint8)
    found = [_match(small, reference.astype(np.float32)) for small in smalls]
    limit = max(MARGIN * max(gain for gain, _, _ in found), LEAST_LIMIT)
    placement = Placement(
        reference=base64.b64encode(reference.tobytes()).decode("ascii"),
        gain_high=limit,
        similarity_low=LIKENESS * min(similarity for _, similarity, _ in found),
    )
    distance = MOVED_SHARE * SIDE
    caught = [
        moved(_shifted(small, distance, 2.4 * number), placement) is not None
        for number, small in enumerate(smalls)  # 2.4 radians on each time: every direction
    ]
    return placement if np.mean(caught) >= FOUND else None


def moved(small: NDArray[np.float32], placement: Placement) -> str | None:
    """Say that a frame was taken by a camera that has moved, or return ``None``.

    Args:
        small: :func:`small_grey` of the frame.
        placement: of the category that it shows.
    """
    gain, similarity, shift = _match(small, _reference(placement.reference))
    if not _has_moved(gain, similarity, shift, placement):
        return None
    return (
        f"moved: the part lies {100 * shift:.0f} % of the image from its place "
        f"(match {similarity:.2f} there, {similarity - gain:.2f} here)"
    )


def gain_where_moved(small: NDArray[np.float32], placement: Placement) -> float | None:
    """Return how much better a frame matches elsewhere, where that counts as moved.

    Args:
        small: :func:`small_grey` of the frame.
        placement: of the category that it shows.
    """
    gain, similarity, shift = _match(small, _reference(placement.reference))
    return gain if _has_moved(gain, similarity, shift, placement) else None


def _has_moved(gain: float, similarity: float, shift: float, placement: Placement) -> bool:
    # A defect changes the match; only a shift makes it good elsewhere.
    good_elsewhere = gain > placement.gain_high and similarity >= placement.similarity_low
    return good_elsewhere and shift >= LEAST_SHIFT


@lru_cache(maxsize=64)
def _reference(text: str) -> NDArray[np.float32]:
    levels = np.frombuffer(base64.b64decode(text), np.uint8)
    return levels.reshape(SIDE, SIDE).astype(np.float32)


def _standardised(small: NDArray[np.float32]) -> NDArray[np.float32]:
    centred: NDArray[np.float32] = (small - small.mean()) / max(float(small.std()), 1e-6)
    return centred


def _match(
    small: NDArray[np.float32], reference: NDArray[np.float32]
) -> tuple[float, float, float]:
    """Compare the frame's middle with every place of the reference.

    Returns:
        How much better the best place matches than the frame's own; how well it matches
        (correlation, -1 to 1); and how far it is away, as a share of the side.
    """
    middle = small[REACH : SIDE - REACH, REACH : SIDE - REACH]
    if float(middle.std()) < 1e-3:  # nothing to match
        return 0.0, 0.0, 0.0
    matches = cv2.matchTemplate(reference, middle, cv2.TM_CCOEFF_NORMED)
    _, best, _, (column, row) = cv2.minMaxLoc(matches)
    shift = float(np.hypot(column - REACH, row - REACH)) / SIDE
    return float(best - matches[REACH, REACH]), float(best), shift


def _shifted(small: NDArray[np.float32], distance: float, angle: float) -> NDArray[np.float32]:
    matrix = np.array([[1, 0, distance * np.cos(angle)], [0, 1, distance * np.sin(angle)]])
    shifted: NDArray[np.float32] = cv2.warpAffine(
        small, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT
    )
    return shifted
