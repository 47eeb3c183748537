"""Pixel metrics in bounded memory: counts of good and defective pixels by score.

A category of 200 images has ten million pixels. Instead of keeping them, we count them in bins
that are the leading bits of the score's float32 pattern, so bins are fine where scores are small
and no range must be known beforehand. The metrics are exactly those of the binned scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.errors import InputError
from hvq_edge.evaluation.metrics.image_metrics import auroc, average_precision, best_f1
from hvq_edge.evaluation.metrics.region_overlap import aupro, region_weights

_BITS = 20
"""Sign, exponent (8) and 11 of 23 mantissa bits: scores within 1 part in 2048 may tie."""
_BINS = 1 << _BITS
_SHIFT = np.uint32(32 - _BITS)
_SIGN = np.uint32(1 << 31)


class PixelTally:
    """Counts pixels of one category by score; about 25 MB, however many pixels and regions."""

    def __init__(self) -> None:
        self._good = np.zeros(_BINS, dtype=np.int64)
        self._defective = np.zeros(_BINS, dtype=np.int64)
        self._overlap = np.zeros(_BINS, dtype=np.float64)
        self._regions = 0

    @property
    def regions(self) -> int:
        """Defect regions counted so far: 8-connected parts of the masks."""
        return self._regions

    def add(self, scores: NDArray[np.floating[Any]], defective: NDArray[np.bool_]) -> None:
        """Count the pixels of one map.

        A mask without a defective pixel adds good pixels only, whatever the image is called:
        what is outside a mask is good, as in the published evaluations.

        Args:
            scores: floating point ``[h, w]``, finite.
            defective: bool, the same shape: the mask.

        Raises:
            InputError: shapes differ or are not ``[h, w]``, labels are not bool, or a score is
                not finite.
        """
        if scores.shape != defective.shape or defective.dtype != np.bool_ or scores.ndim != 2:
            raise InputError(
                f"a map of {list(scores.shape)} does not fit a mask of {defective.dtype} "
                f"{list(defective.shape)}; expected [h, w] and bool [h, w]."
            )
        if not np.isfinite(scores).all():
            raise InputError(
                "an anomaly map has values that are not finite.",
                next_step="check the model with hvq-edge verify",
            )
        bins = _bin_of(scores)
        self._good += np.bincount(bins[~defective], minlength=_BINS)
        if defective.any():
            found = region_weights(defective)
            inside = bins[defective]
            self._defective += np.bincount(inside, minlength=_BINS)
            self._overlap += np.bincount(inside, found.weights[defective], minlength=_BINS)
            self._regions += found.regions

    def auroc(self) -> float | None:
        """Pixel AUROC, or ``None`` where there are no good or no defective pixels."""
        return auroc(*self._by_bin())

    def average_precision(self) -> float | None:
        """Pixel average precision, or ``None`` where there are no good or no defective pixels."""
        return average_precision(*self._by_bin())

    def best_f1(self) -> float | None:
        """Pixel F1-max, or ``None`` where there are no good or no defective pixels."""
        best = best_f1(*self._by_bin())
        return best.f1 if best else None

    def aupro(self) -> float | None:
        """AUPRO up to a false positive rate of 0.3, or ``None`` as above.

        See :func:`hvq_edge.evaluation.metrics.region_overlap.aupro`.
        """
        used = np.flatnonzero(self._good + self._defective)
        return aupro(self._good[used], self._overlap[used])

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
