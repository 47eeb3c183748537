"""Pixel metrics in bounded memory: counts of good and defective pixels by score.

A category of 200 pictures has ten million pixels. Instead of keeping them, we count them in bins
that are the leading bits of the score's float32 pattern, so bins are fine where scores are small
and no range must be known beforehand. The areas are those of the binned scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.errors import InputError
from hvq_edge.evaluation.metrics import auroc, average_precision

_BITS = 20
"""Sign, exponent (8) and 11 of 23 mantissa bits: scores within 1 part in 2048 may tie."""
_SHIFT = np.uint32(32 - _BITS)
_SIGN = np.uint32(1 << 31)


class PixelTally:
    """Counts pixels of one category by score; about 16 MB, however many pixels."""

    def __init__(self) -> None:
        self._good = np.zeros(1 << _BITS, dtype=np.int64)
        self._defective = np.zeros(1 << _BITS, dtype=np.int64)

    def add(self, scores: NDArray[np.floating[Any]], defective: NDArray[np.bool_]) -> None:
        """Count the pixels of one map.

        Args:
            scores: floating point, any shape, finite.
            defective: bool, the same shape.

        Raises:
            InputError: shapes differ, labels are not bool, or a score is not finite.
        """
        if scores.shape != defective.shape or defective.dtype != np.bool_:
            raise InputError(
                f"a map of {list(scores.shape)} does not fit a mask of {defective.dtype} "
                f"{list(defective.shape)}."
            )
        if not np.isfinite(scores).all():
            raise InputError(
                "an anomaly map has values that are not finite.",
                next_step="check the model with hvq-edge verify",
            )
        bins = _bin_of(scores)
        self._defective += np.bincount(bins[defective], minlength=1 << _BITS)
        self._good += np.bincount(bins[~defective], minlength=1 << _BITS)

    def auroc(self) -> float | None:
        """Pixel AUROC, or ``None`` where there are no good or no defective pixels."""
        return auroc(*self._by_bin())

    def average_precision(self) -> float | None:
        """Pixel average precision, or ``None`` where there are no good or no defective pixels."""
        return average_precision(*self._by_bin())

    def _by_bin(self) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
        """Return score, label and count of every bin in use; the bin's number is the score."""
        used = np.flatnonzero(self._good + self._defective)
        scores = np.concatenate([used, used]).astype(np.float64)
        labels = np.repeat([False, True], len(used))
        return scores, labels, np.concatenate([self._good[used], self._defective[used]])


def _bin_of(scores: NDArray[np.floating[Any]]) -> NDArray[np.uint32]:
    """Return each score's bin; a larger score never has a smaller bin."""
    bits = (scores.astype(np.float32) + np.float32(0.0)).view(np.uint32)  # -0.0 becomes 0.0
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    bins: NDArray[np.uint32] = ordered >> _SHIFT
    return bins
