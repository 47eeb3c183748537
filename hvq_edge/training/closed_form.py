"""What good images say in closed form, in NumPy alone: a device without PyTorch computes it too."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from hvq_edge.run.settings import LARGEST_LEVEL

Floats = NDArray[np.float64]

RIDGE = 0.15
"""Share of a covariance's mean eigenvalue that is added before it is inverted: it bounds how much
directions that hardly vary, and rounding errors in them, are enlarged. From 0.05 to 0.5 the
accuracy hardly changes (docs/explanation/map-and-score.md); the larger, the less INT8 differs."""
TOKENS_A_CATEGORY = 20_000
"""Tokens that k-means sees: enough for a thousand centres, and bounded for any data set."""
MOST_VARIED = 200
"""Images of a category whose versions are looked at: enough for means and variances, and bounded
for any data set."""
LEAST_FOR_SLOPE = 3
"""Good images of a group from which on it counts for the slope."""
MOST_FOR_SLOPE = 1000
"""Good images of a category that the slope is fitted to: it compares each with every other."""
LEVEL_REACH = 10.0
"""Robust deviations of the level beyond which it is not left out of the score."""


def inverse_root(moment: Floats, ridge: float = RIDGE) -> Floats:
    """Symmetric inverse square root of a covariance with a ridge, ``[c, c]`` -> same."""
    values, vectors = np.linalg.eigh(moment)
    mean = max(values.mean(), np.finfo(np.float32).tiny)  # features that never vary
    scaled = (np.maximum(values, 1e-9 * mean) + ridge * mean) ** -0.5
    root: Floats = (vectors * scaled) @ vectors.T
    return root


def whitened(tokens: Floats) -> tuple[Floats, Floats, NDArray[np.float32]]:
    """Whiten tokens of good images, ``[tokens, channels]``.

    Returns:
        Whitening ``[channels, channels]`` and shift ``[channels]``; and the white tokens,
        ``tokens @ whitening + shift``.
    """
    mean = tokens.mean(0)
    inner = tokens - mean
    whitening = inverse_root(inner.T @ inner / len(tokens))
    return whitening, -(mean @ whitening), (inner @ whitening).astype(np.float32)


def scale_of_parts(
    parts: Floats, by: Collection[str] = ("category", "position")
) -> tuple[Floats, Floats]:
    """Centre and spread that standardise a category's parts of the map.

    The mean of two standardisations: with the category's own mean and deviation, which suits parts
    that lie anywhere, and position by position, which suits parts that always lie the same. A
    position's variance is pooled half and half with its category's: with few images its own
    estimate is too noisy to divide by.

    Args:
        parts: ``[parts, images, tokens]``, of good images.
        by: which standardisations: ``category``, ``position`` or both.

    Returns:
        ``[parts, tokens]`` each.
    """
    position_mean = parts.mean(1)
    variance = np.square(parts - position_mean[:, None]).mean(1)
    position_spread = np.sqrt((variance + variance.mean(1, keepdims=True)) / 2)
    shape = position_mean.shape
    mean, spread = (np.broadcast_to(f((1, 2))[:, None], shape) for f in (parts.mean, parts.std))
    each = {"category": (mean, spread), "position": (position_mean, position_spread)}
    chosen = [(centre, np.maximum(spread, 1e-6)) for centre, spread in (each[one] for one in by)]
    # x -> ((x - mean) / spread + (x - position_mean) / position_spread) / 2 is again linear.
    scale = np.mean([1 / spread for _, spread in chosen], axis=0)
    centre = np.mean([centre / spread for centre, spread in chosen], axis=0) / scale
    return centre, 1 / scale


def level_of_good_images(
    fit: Floats, held_out: Floats, reach: float = LEVEL_REACH
) -> tuple[float, float]:
    """How much of an image's own level a category's score leaves out.

    The share is the slope, between 0 and 1, of the highest window on the level over good images:
    what the score of a good image owes to its level (Theil and Sen's, which a few odd images among
    the good ones do not move). The images that the model learnt from score lower than held-out
    ones, all of them alike: that moves the line, not its slope, so each group is centred on its
    own medians, and both count.

    A level that no good image comes near is a defect of the whole image. So no more is left out
    than the level of the median held-out image and ``reach`` robust deviations.

    Args:
        fit: level and highest window of images that the model learnt from, ``[images, 2]``.
        held_out: the same of held-out images.
        reach: robust deviations of the level.

    Returns:
        Share and limit; 1 and :data:`LARGEST_LEVEL` where there are too few images to tell.
    """
    groups = [group for group in (fit, held_out) if len(group) >= LEAST_FOR_SLOPE]
    if not groups:
        return 1.0, LARGEST_LEVEL
    centred = np.concatenate([group - np.median(group, axis=0) for group in groups])
    level, window = centred[:: -(-len(centred) // MOST_FOR_SLOPE)].T
    slope = _median_slope(level, window) if level.std() > 1e-6 else 1.0
    deviation = 1.4826 * np.median(np.abs(centred[:, 0]))
    middle = np.median(groups[-1][:, 0])  # of held-out images where there are enough
    return float(np.clip(slope, 0.0, 1.0)), float(middle + reach * deviation)


def _median_slope(x: Floats, y: Floats) -> float:
    """Theil and Sen's: the median of the slopes between any two points."""
    right = x[:, None] - x
    between = right > 0
    return float(np.median((y[:, None] - y)[between] / right[between]))
