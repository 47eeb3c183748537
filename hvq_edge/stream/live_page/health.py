"""Whether the inspector does its work, for a monitor that asks every few seconds."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from hvq_edge.stream.statistics import Statistics

STALL_SECONDS = 30.0
"""Without any frame, lost ones included, the inspector counts as stalled."""


@dataclass(frozen=True)
class Health:
    """Whether frames are judged, and what is wrong in words."""

    working: bool
    failing: tuple[str, ...]
    """Parts may pass uninspected: HTTP 503."""
    degraded: tuple[str, ...]
    """Decisions are made, but something beside them does not work, or the images are unlike the
    training images or have drifted: still 200, because starting the inspector again would not
    help."""


class HealthCheck:
    """Judges snapshots; remembers when the counts last moved. Thread-safe.

    Args:
        stall_seconds: how long no frame may come, where frames are due.
    """

    def __init__(self, stall_seconds: float = STALL_SECONDS) -> None:
        self._stall_seconds = stall_seconds
        self._lock = threading.Lock()
        self._progress = -1
        self._moved = time.monotonic()

    def __call__(self, statistics: Statistics) -> Health:
        """Judge a snapshot."""
        counts = statistics.counts
        progress = counts.decided + counts.dropped
        with self._lock:
            now = time.monotonic()
            if progress != self._progress or statistics.idle:
                self._progress, self._moved = progress, now
            still = now - self._moved
        failing = [
            f"{_said(camera.name)}: {camera.fault or 'no image'}"
            for camera in statistics.cameras
            if not camera.connected and (camera.fault or camera.counts.frames)
        ]
        if statistics.engine_fault:
            failing.append(statistics.engine_fault)
        if still > self._stall_seconds:
            failing.append(f"no frame was decided for {still:.0f} s")
        degraded = [f"{sink.name}: {sink.fault}" for sink in statistics.sinks if sink.fault]
        degraded += [
            f"{_said(camera.name)}: {camera.unlike}"
            for camera in statistics.cameras
            if camera.unlike
        ]
        degraded += [
            f"{_said(camera.name)}: {camera.drift}" for camera in statistics.cameras if camera.drift
        ]
        return Health(not failing, tuple(failing), tuple(degraded))


def _said(name: str) -> str:
    return name if name.startswith("camera ") else f"camera {name}"
