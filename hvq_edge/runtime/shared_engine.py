"""One engine for a line and for guests, who ask beside it: the line goes first."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.closeable import Closeable
from hvq_edge.runtime.engine import Engine, EngineOutput, Frames

RESTS = 3
"""A guest's call is followed by so many times its length in which guests ask for nothing."""
PATIENCE_SECONDS = 1.0
"""A guest waits no longer for a gap in the line's calls that is long enough."""


class SharedEngine(Closeable):
    """What a line calls in place of its engine; guests call :attr:`guest`.

    No two calls overlap. A guest's call begins where it should end before the line's next one, as
    far as the last ones tell; where the line leaves no such gap, after :data:`PATIENCE_SECONDS`.
    After it guests wait until the line has left the engine alone for :data:`RESTS` times as long.

    Args:
        engine: any; called on several threads, as all engines may be. Closed together with this.
    """

    def __init__(self, engine: Engine) -> None:
        self.info = engine.info
        self.guest: Engine = _Guest(self)
        """For whoever is not the line; closing it does nothing."""
        self.judges = engine
        """What it calls; it is called through this one alone."""
        self._changed = threading.Condition()
        self._busy = False
        self._line_waits = False
        self._free_since = time.monotonic()
        self._rest = 0.0
        """Seconds without a call, from then on, that guests have to wait for."""
        self._line_began = -math.inf
        self._interval = 0.0
        """Seconds from the start of the line's last call but one to that of the last."""
        self._guest_took = 0.0

    def run(self, frames: Frames, category: NDArray[np.int32] | None = None) -> EngineOutput:
        """Judge a batch of the line; see :meth:`hvq_edge.runtime.engine.Engine.run`."""
        with self._changed:
            self._line_waits = True
            now = time.monotonic()
            self._interval, self._line_began = now - self._line_began, now
            self._changed.wait_for(lambda: not self._busy)
            self._line_waits = False
            self._take()
        try:
            return self.judges.run(frames, category)
        finally:
            self._leave()

    def run_for_guest(
        self, frames: Frames, category: NDArray[np.int32] | None = None
    ) -> EngineOutput:
        """Judge a batch of a guest, when it is a guest's turn."""
        with self._changed:
            patient_until = time.monotonic() + PATIENCE_SECONDS
            while (seconds := self._seconds_to_guest(patient_until)) > 0.0:
                self._changed.wait(None if math.isinf(seconds) else seconds)
            self._take()
        began = time.monotonic()
        try:
            return self.judges.run(frames, category)
        finally:
            self._guest_took = time.monotonic() - began
            self._leave(rest=RESTS * self._guest_took)

    def close(self) -> None:
        """Close the engine; calling it twice is fine."""
        self.judges.close()

    def _seconds_to_guest(self, patient_until: float) -> float:
        """Return how long a guest waits at least; infinity: until something changes."""
        if self._busy or self._line_waits:
            return math.inf
        now = time.monotonic()
        seconds = self._rest - (now - self._free_since)
        due = self._line_began + self._interval
        if now + self._guest_took > due:  # else it ends before the line's next call
            # A line that is late by as much again has paused, or ended.
            seconds = max(seconds, min(due + self._interval, patient_until) - now)
        return seconds

    def _take(self) -> None:
        self._busy = True
        self._rest = max(self._rest - (time.monotonic() - self._free_since), 0.0)

    def _leave(self, rest: float | None = None) -> None:
        with self._changed:
            self._busy = False
            self._free_since = time.monotonic()
            if rest is not None:
                self._rest = rest
            self._changed.notify_all()


class _Guest(Closeable):
    def __init__(self, shared: SharedEngine) -> None:
        self.info = shared.info
        self._shared = shared

    def run(self, frames: Frames, category: NDArray[np.int32] | None = None) -> EngineOutput:
        return self._shared.run_for_guest(frames, category)

    def close(self) -> None:
        """The engine is the line's."""
