"""Outputs that show a state to a controller: reject or not, and that the inspector lives.

They act on the newest decision only. A controller that was away for a minute must not be told what
was rejected a minute ago; the log has it, and stale decisions are counted as dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from hvq_edge.errors import OutputError
from hvq_edge.stream.sinks.plant.reject_signal import RejectSignal
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision


class Controller(Protocol):
    """A device that holds a few values; used by one thread."""

    def set_reject(self, on: bool) -> None:
        """Set the reject signal.

        Raises:
            OutputError: it cannot be set; the next call connects anew.
        """
        ...

    def set_decision(self, decision: Decision) -> None:
        """Show a decision's other values, where the device has room for them.

        Raises:
            OutputError: likewise.
        """
        ...

    def beat(self, on: bool) -> None:
        """Set the heartbeat, which changes each time.

        Raises:
            OutputError: likewise.
        """
        ...

    def close(self) -> None:
        """End the connection; calling it twice is fine."""
        ...


class LevelOutput:
    """A sink that keeps a controller's values as they should be.

    Run it behind a :class:`hvq_edge.stream.sinks.threads.SinkThread` with ``newest``.

    Args:
        controller: closed at the end, with the reject signal off.
        signal: when the reject signal is on.
        heartbeat_seconds: how often the heartbeat changes; ``None``: there is none.
    """

    def __init__(
        self, controller: Controller, signal: RejectSignal, heartbeat_seconds: float | None = None
    ) -> None:
        self._controller = controller
        self._signal = signal
        self._heartbeat_seconds = heartbeat_seconds
        self._beat = False
        self._beat_at = 0.0
        self._shown: bool | None = None

    def write(self, decision: Decision, frame: Frame) -> None:  # noqa: ARG002  # of the protocol
        """Show one decision.

        Raises:
            OutputError: the controller cannot be reached; :meth:`tick` tries again.
        """
        self._signal.see(decision, time.monotonic())
        self._show()
        self._guarded(lambda: self._controller.set_decision(decision))

    def tick(self) -> float | None:
        """Let the signal go when its time is over, and beat.

        Raises:
            OutputError: the controller cannot be reached.
        """
        self._show()
        now = time.monotonic()
        waits = [self._signal.seconds_left(now)]
        if self._heartbeat_seconds is not None:
            if now >= self._beat_at:
                self._guarded(lambda: self._controller.beat(not self._beat))
                self._beat = not self._beat
                self._beat_at = now + self._heartbeat_seconds
            waits.append(self._beat_at - now)
        return min((wait for wait in waits if wait is not None), default=None)

    def close(self) -> None:
        """Set the signal off and end the connection.

        Raises:
            OutputError: the controller cannot be reached.
        """
        try:
            if self._shown:
                self._controller.set_reject(False)
                self._shown = False
        finally:
            self._controller.close()

    def _show(self) -> None:
        on = self._signal.on(time.monotonic())
        if on != self._shown:
            self._guarded(lambda: self._controller.set_reject(on))
            self._shown = on

    def _guarded(self, function: Callable[[], None]) -> None:
        try:
            function()
        except OutputError:
            self._shown = None  # a controller that was away may have forgotten it
            raise
