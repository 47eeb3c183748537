"""When a signal of the line is on: from a reject until some time is over or the next pass."""

from __future__ import annotations

import threading

from hvq_edge.verdict.decision import Decision


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
        verdict = decision.acted_on
        rejects = verdict == "reject" or (verdict == "no_decision" and self._no_decision_rejects)
        with self._lock:
            if rejects:
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
            return None if self._until is None else max(self._until - now, 0.0)

    def _is_on(self, now: float) -> bool:
        if self._until is not None and now >= self._until:
            self._rejecting.clear()
            self._until = None
        return bool(self._rejecting)
