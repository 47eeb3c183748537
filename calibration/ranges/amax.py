"""The amax of a tensor, the absolute value that int8 represents as 127, from a histogram.

An amax that holds every value (``minmax``) clips nothing and rounds coarsely; a smaller one rounds
finer and clips what is rare.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hvq_edge.calibration.quantise import QMAX

RangeMethod = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[RangeMethod, ...] = get_args(RangeMethod)

PERCENTILE = 99.99
"""``percentile`` clips nothing of this share of all values."""
MIN_AMAX = 1e-6
"""The amax of a tensor that is always 0: a scale must be above 0."""
BINS = 2048
LEVELS = 128
"""Absolute values that int8 tells apart, 0 included."""
_CANDIDATES = 128
_NOWHERE_ZERO = 1e-7
"""Added to probabilities: the logarithm of none is not finite."""


class HistogramCollector:
    """Collects a histogram of the absolute values of a tensor.

    Its bins are made twice as wide whenever a value lies beyond them, so memory does not grow with
    the number of values and no value is lost.

    Attributes:
        amax: the largest absolute value.
        whole: whether every value was a whole number that int8 has, -128 .. 127.
        top: the upper edge of the last bin.
        counts: int64 ``[BINS]``.
    """

    def __init__(self) -> None:
        self.amax = 0.0
        self.whole = True
        self.top = 0.0
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values, finite, of any shape."""
        self.whole = self.whole and _fits_int8(values)
        magnitude = np.abs(values).ravel()
        amax = float(magnitude.max(initial=0.0))
        self.amax = max(self.amax, amax)
        if not self.top:
            if not amax:
                self.counts[0] += magnitude.size
                return
            self.top = amax
        while amax > self.top:
            self.counts = np.pad(self.counts.reshape(-1, 2).sum(1), (0, BINS // 2))
            self.top *= 2
        found, _ = np.histogram(magnitude, BINS, (0.0, self.top))
        self.counts += found

    @property
    def edges(self) -> NDArray[np.float64]:
        """Upper edge of each bin."""
        return np.arange(1, BINS + 1, dtype=np.float64) * (self.top / BINS)


def choose_amax(histogram: HistogramCollector, method: RangeMethod) -> float:
    """Choose a tensor's amax: above 0, and at most the largest absolute value that was seen.

    Where all values are whole numbers that int8 has, and some are above half of 127 (pixels less
    their mean), a scale of 1 holds them as they are, and amax is 127 whatever the method.

    Args:
        histogram: the tensor's values.
        method: ``minmax`` takes the largest absolute value; ``percentile`` the one that
            :data:`PERCENTILE` per cent of the values do not exceed; ``entropy`` the one with the
            least divergence of the rounded distribution from the true one (Migacz, "8-bit
            inference with TensorRT", GTC 2017); ``mse`` the one with the least mean squared error.
    """
    if histogram.amax < MIN_AMAX:
        return MIN_AMAX
    if histogram.whole and histogram.amax > QMAX / 2:
        return float(QMAX)
    if method == "minmax":
        return histogram.amax
    choose = {"percentile": _percentile, "entropy": _entropy, "mse": _least_squares}[method]
    return float(np.clip(choose(histogram), MIN_AMAX, histogram.amax))


def _fits_int8(values: NDArray[np.float32]) -> bool:
    lowest, highest = values.min(initial=0.0), values.max(initial=0.0)
    return bool(lowest >= -QMAX - 1 and highest <= QMAX and (values == np.rint(values)).all())


def squared_error(
    histogram: HistogramCollector, amaxes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum the squared errors of rounding to int8 with each amax, ``[n]`` -> ``[n]``."""
    middle = histogram.edges - histogram.top / (2 * BINS)
    scale = amaxes[:, None] / QMAX
    rounded = np.minimum(np.rint(middle / scale), QMAX) * scale
    error: NDArray[np.float64] = np.square(rounded - middle) @ histogram.counts
    return error


def _percentile(histogram: HistogramCollector) -> float:
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    return float(histogram.edges[np.searchsorted(share, PERCENTILE / 100)])


def _least_squares(histogram: HistogramCollector) -> float:
    candidates = np.linspace(1 / _CANDIDATES, 1, _CANDIDATES) * histogram.amax
    return float(candidates[np.argmin(squared_error(histogram, candidates))])


def _entropy(histogram: HistogramCollector) -> float:
    counts = histogram.counts.astype(np.float64)
    # After a ReLU most values are 0, in whatever range: they would outvote all others.
    counts[0] = counts[1]
    candidates = range(LEVELS, BINS + 1, BINS // _CANDIDATES)
    divergences = [_divergence(counts, end) for end in candidates]
    return float(histogram.edges[candidates[int(np.argmin(divergences))] - 1])


def _divergence(counts: NDArray[np.float64], end: int) -> float:
    """Return the Kullback-Leibler divergence of rounded from clipped values, bins below end."""
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
