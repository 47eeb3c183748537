"""When a signal of the line is on: from a reject until some time is over or the next pass."""

from __future__ import annotations

from hvq_edge.verdict.decision import Decision


class RejectSignal:
    """Follows decisions; the caller asks what the signal should be now.

    Args:
        hold_seconds: how long a reject keeps it on; ``None``: until the next pass.
        no_decision_rejects: whether a frame without a decision counts as a reject. If not, it
            changes nothing.
    """

    def __init__(self, hold_seconds: float | None, *, no_decision_rejects: bool = False) -> None:
        self._hold_seconds = hold_seconds
        self._no_decision_rejects = no_decision_rejects
        self._on = False
        self._until: float | None = None

    def see(self, decision: Decision, now: float) -> None:
        """Take the newest decision.

        Args:
            decision: the decision.
            now: seconds on the monotonic clock.
        """
        rejects = decision.verdict == "reject" or (
            decision.verdict == "no_decision" and self._no_decision_rejects
        )
        if rejects:
            self._on = True
            self._until = None if self._hold_seconds is None else now + self._hold_seconds
        elif decision.verdict == "pass" and self._hold_seconds is None:
            self._on = False

    def on(self, now: float) -> bool:
        """Tell whether the signal should be on."""
        if self._until is not None and now >= self._until:
            self._on, self._until = False, None
        return self._on

    def seconds_left(self, now: float) -> float | None:
        """Return after how long it goes off by itself; ``None`` where it does not."""
        return None if self._until is None else max(self._until - now, 0.0)
