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


class SharedEngine(Closeable):
    """What a line calls in place of its engine; guests call :attr:`guest`.

    No two calls overlap. The line waits for one call of a guest at most, and after it guests wait
    until the line has left the engine alone for :data:`RESTS` times as long as it took: they get a
    quarter of the time that the line leaves, so that a line with little to spare loses little.

    Args:
        engine: any; called on several threads, as all engines may be. Closed together with this.
    """

    def __init__(self, engine: Engine) -> None:
        self.info = engine.info
        self.guest: Engine = _Guest(self)
        """For whoever is not the line; closing it does nothing."""
        self._engine = engine
        self._changed = threading.Condition()
        self._busy = False
        self._line_waits = False
        self._free_since = time.monotonic()
        self._rest = 0.0
        """Seconds without a call, from then on, that guests have to wait for."""

    def run(self, frames: Frames, category: NDArray[np.int32] | None = None) -> EngineOutput:
        """Judge a batch of the line; see :meth:`hvq_edge.runtime.engine.Engine.run`."""
        with self._changed:
            self._line_waits = True
            self._changed.wait_for(lambda: not self._busy)
            self._line_waits = False
            self._take()
        try:
            return self._engine.run(frames, category)
        finally:
            self._leave()

    def run_for_guest(
        self, frames: Frames, category: NDArray[np.int32] | None = None
    ) -> EngineOutput:
        """Judge a batch of a guest, when it is a guest's turn."""
        with self._changed:
            while (seconds := self._seconds_to_guest()) > 0.0:
                self._changed.wait(None if math.isinf(seconds) else seconds)
            self._take()
        began = time.monotonic()
        try:
            return self._engine.run(frames, category)
        finally:
            self._leave(rest=RESTS * (time.monotonic() - began))

    def close(self) -> None:
        """Close the engine; calling it twice is fine."""
        self._engine.close()

    def _seconds_to_guest(self) -> float:
        """Return how long a guest waits at least; infinity: until something changes."""
        if self._busy or self._line_waits:
            return math.inf
        return self._rest - (time.monotonic() - self._free_since)

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
