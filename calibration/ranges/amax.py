"""How far int8 shall reach for a tensor, from how often its magnitudes occur.

A range that holds every value (``minmax``) clips nothing and rounds coarsely; a smaller one rounds
finer and clips what is rare.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hvq_edge.calibration.quantise import LARGEST

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)

PERCENTILE = 99.99
"""Of all values, that ``percentile`` holds."""
SMALLEST = 1e-6
"""Range of a tensor that is always 0: a scale must be above 0."""
BINS = 2048
LEVELS = 128
"""Magnitudes that int8 tells apart, 0 included."""
_CANDIDATES = 128
_NOWHERE_ZERO = 1e-7
"""Added to probabilities: the logarithm of none is not finite."""


class Magnitudes:
    """How often each magnitude of a tensor occurred: a histogram of absolute values.

    Its bins are made twice as wide whenever a value lies beyond them, so memory does not grow with
    the number of values and no value is lost.

    Attributes:
        largest: of all magnitudes.
        whole: whether every value was a whole number that int8 has, -128 .. 127.
    """

    def __init__(self) -> None:
        self.largest = 0.0
        self.whole = True
        self.top = 0.0
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values, finite, of any shape."""
        self.whole = self.whole and _fits_int8(values)
        magnitude = np.abs(values).ravel()
        largest = float(magnitude.max(initial=0.0))
        self.largest = max(self.largest, largest)
        if not self.top:
            if not largest:
                self.counts[0] += magnitude.size
                return
            self.top = largest
        while largest > self.top:
            self.counts = np.pad(self.counts.reshape(-1, 2).sum(1), (0, BINS // 2))
            self.top *= 2
        found, _ = np.histogram(magnitude, BINS, (0.0, self.top))
        self.counts += found

    @property
    def edges(self) -> NDArray[np.float64]:
        """Upper edge of each bin."""
        return np.arange(1, BINS + 1, dtype=np.float64) * (self.top / BINS)


def reach(magnitudes: Magnitudes, method: Method) -> float:
    """Return the largest magnitude that int8 shall represent: above 0, at most the largest seen.

    Where all values are whole numbers that int8 has and reach over half of it (pixels less their
    mean), steps of 1 hold them as they are, whatever the method: 127.

    Args:
        magnitudes: of the tensor.
        method: ``minmax``: the largest; ``percentile``: what :data:`PERCENTILE` per cent do not
            exceed; ``entropy``: the least divergence of the rounded distribution from the true one
            (Migacz, "8-bit inference with TensorRT", GTC 2017);
            ``mse``: the least mean squared error.
    """
    if magnitudes.largest < SMALLEST:
        return SMALLEST
    if magnitudes.whole and magnitudes.largest > LARGEST / 2:
        return float(LARGEST)
    if method == "minmax":
        return magnitudes.largest
    choose = {"percentile": _percentile, "entropy": _entropy, "mse": _least_squares}[method]
    return float(np.clip(choose(magnitudes), SMALLEST, magnitudes.largest))


def _fits_int8(values: NDArray[np.float32]) -> bool:
    lowest, highest = values.min(initial=0.0), values.max(initial=0.0)
    return bool(lowest >= -LARGEST - 1 and highest <= LARGEST and (values == np.rint(values)).all())


def squared_error(magnitudes: Magnitudes, ranges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of squared errors of rounding to int8 with each range, from the histogram; ``[n]``."""
    middle = magnitudes.edges - magnitudes.top / (2 * BINS)
    scale = ranges[:, None] / LARGEST
    rounded = np.minimum(np.rint(middle / scale), LARGEST) * scale
    error: NDArray[np.float64] = np.square(rounded - middle) @ magnitudes.counts
    return error


def _percentile(magnitudes: Magnitudes) -> float:
    share = np.cumsum(magnitudes.counts) / magnitudes.counts.sum()
    return float(magnitudes.edges[np.searchsorted(share, PERCENTILE / 100)])


def _least_squares(magnitudes: Magnitudes) -> float:
    candidates = np.linspace(1 / _CANDIDATES, 1, _CANDIDATES) * magnitudes.largest
    return float(candidates[np.argmin(squared_error(magnitudes, candidates))])


def _entropy(magnitudes: Magnitudes) -> float:
    counts = magnitudes.counts.astype(np.float64)
    # After a ReLU most values are 0, in whatever range: they would outvote all others.
    counts[0] = counts[1]
    candidates = range(LEVELS, BINS + 1, BINS // _CANDIDATES)
    divergences = [_divergence(counts, end) for end in candidates]
    return float(magnitudes.edges[candidates[int(np.argmin(divergences))] - 1])


def _divergence(counts: NDArray[np.float64], end: int) -> float:
    """Kullback-Leibler divergence of the rounded from the clipped distribution, bins below end."""
    clipped = counts[:end].copy()
    occurs = clipped > 0
    starts = np.arange(LEVELS) * end // LEVELS
    level = np.repeat(np.arange(LEVELS), np.diff(starts, append=end))
    sums = np.add.reduceat(clipped, starts)
    occupied = np.maximum(np.add.reduceat(occurs.astype(np.float64), starts), 1)
    rounded = np.where(occurs, (sums / occupied)[level], 0)  # what a level holds, spread evenly
    clipped[-1] += counts[end:].sum()  # what lies beyond is clipped to the end
    p, q = (x / max(x.sum(), 1.0) + _NOWHERE_ZERO for x in (clipped, rounded))
    return float((p * np.log(p / q)).sum())
