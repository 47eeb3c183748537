"""Latency percentiles over any number of frames in constant memory."""

from __future__ import annotations

import math
import threading

import numpy as np

_SMALLEST_MS = 0.001
_STEP = 1.01
_BINS = 2200
"""1.01 ** 2200 * 0.001 ms is well over a month: nothing falls off the end."""
_LOG_STEP = math.log(_STEP)

STAGES = ("waiting", "checks", "engine", "decision", "total")
"""In the order of the path; see :class:`hvq_edge.stream.statistics.Statistics`."""


class LatencyHistogram:
    """Counts latencies in bins whose edges grow by 1 %, so percentiles are right to 1 %."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, dtype=np.int64)

    def add(self, milliseconds: float) -> None:
        """Count one latency; below a microsecond counts as a microsecond."""
        ratio = max(milliseconds, _SMALLEST_MS) / _SMALLEST_MS
        self._counts[min(int(math.log(ratio) / _LOG_STEP), _BINS - 1)] += 1

    def copy(self) -> LatencyHistogram:
        """Return one that does not change any more."""
        copied = LatencyHistogram()
        copied._counts[:] = self._counts
        return copied

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


class StageLatencies:
    """A histogram a stage; one thread adds, any thread takes snapshots."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages = {stage: LatencyHistogram() for stage in STAGES}

    def add(self, stage: str, milliseconds: float) -> None:
        """Count one latency of a stage."""
        with self._lock:
            self._stages[stage].add(milliseconds)

    def snapshot(self) -> dict[str, LatencyHistogram]:
        """Return copies of all, in the order of the path."""
        with self._lock:
            return {stage: histogram.copy() for stage, histogram in self._stages.items()}
