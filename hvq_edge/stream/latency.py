"""Latency percentiles over any number of frames in constant memory."""

from __future__ import annotations

import math

import numpy as np

_SMALLEST_MS = 0.001
_STEP = 1.01
_BINS = 2200
"""1.01 ** 2200 * 0.001 ms is well over a month: nothing falls off the end."""


class LatencyHistogram:
    """Counts latencies in bins whose edges grow by 1 %, so percentiles are right to 1 %."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, dtype=np.int64)

    def add(self, milliseconds: float) -> None:
        """Count one latency; below a microsecond counts as a microsecond."""
        ratio = max(milliseconds, _SMALLEST_MS) / _SMALLEST_MS
        self._counts[min(int(math.log(ratio) / math.log(_STEP)), _BINS - 1)] += 1

    @property
    def count(self) -> int:
        """How many latencies were counted."""
        return int(self._counts.sum())

    def percentile(self, percent: float) -> float | None:
        """Return the smallest latency that ``percent`` of all do not exceed, in milliseconds.

        Args:
            percent: above 0, at most 100.

        Returns:
            Exact to 1 %; ``None`` before the first latency.
        """
        total = self.count
        if not total:
            return None
        rank = max(math.ceil(total * percent / 100.0), 1)
        position = int(np.searchsorted(np.cumsum(self._counts), rank))
        return float(_SMALLEST_MS * _STEP ** (position + 0.5))
