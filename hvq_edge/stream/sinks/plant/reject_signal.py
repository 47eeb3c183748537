"""When a signal of the line is on: from a reject until some time is over or the next pass."""

from __future__ import annotations

import threading

from hvq_edge.verdict.decision import Decision

LATE_SECONDS = 0.25
"""A reject that its output has not shown yet outlives its time to hold by this: a busy machine
wakes threads late. After that its part is gone, and another one would be ejected."""


class RejectSignal:
    """Follows decisions; the caller asks what the signal should be now. Thread-safe.

    Of several cameras each has its own reject, and the signal is on while any of them has. Of a
    part that is seen in several frames (k of n) it follows the part's verdict.

    Args:
        hold_seconds: how long a reject keeps it on; ``None``: until the next pass of its camera.
        no_decision_rejects: whether a frame, or a part of several, without a decision counts as a
            reject. If not, it changes nothing.
    """

    def __init__(self, hold_seconds: float | None, *, no_decision_rejects: bool = False) -> None:
        self._hold_seconds = hold_seconds
        self._no_decision_rejects = no_decision_rejects
        self._lock = threading.Lock()
        self._rejecting: set[str] = set()
        """Cameras whose reject holds."""
        self._until: float | None = None
        self._unshown = False
        """It went on, and nobody has shown it yet."""

    def see(self, decision: Decision, now: float) -> None:
        """Take the newest decision of a camera.

        Args:
            decision: the decision.
            now: seconds on the monotonic clock.
        """
        former = decision.cut_short
        with self._lock:
            for verdict in (former.verdict if former else None, decision.acted_on):
                if verdict == "reject" or (verdict == "no_decision" and self._no_decision_rejects):
                    self._unshown = self._unshown or not self._is_on(now)
                    self._rejecting.add(decision.camera)
                    self._until = None if self._hold_seconds is None else now + self._hold_seconds
                elif verdict == "pass" and self._hold_seconds is None:
                    self._rejecting.discard(decision.camera)

    def on(self, now: float) -> bool:
        """Tell whether the signal should be on."""
        with self._lock:
            return self._is_on(now)

    def shown(self, now: float) -> None:
        """Hold it from now on, where it went on and nobody knew of it: an output takes its time."""
        with self._lock:
            if self._unshown and self._hold_seconds is not None and self._is_on(now):
                self._until = now + self._hold_seconds
            self._unshown = False

    def seconds_left(self, now: float) -> float | None:
        """Return after how long it goes off by itself; ``None`` where it does not."""
        with self._lock:
            end = self._end()
            return None if end is None else max(end - now, 0.0)

    def _is_on(self, now: float) -> bool:
        end = self._end()
        if end is not None and now >= end:
            self._rejecting.clear()
            self._until = None
            self._unshown = False
        return bool(self._rejecting)

    def _end(self) -> float | None:
        if self._until is None or not self._unshown:
            return self._until
        return self._until + LATE_SECONDS
