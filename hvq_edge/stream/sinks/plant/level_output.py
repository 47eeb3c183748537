"""Outputs that show a state to a controller: reject or not, and that the inspector lives.

They show the newest decision only. A controller that was away for a minute must not be told what
was rejected a minute ago; the log has it, and stale decisions are counted as dropped. The reject
signal follows every decision: one camera's pass does not hide another's reject.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from hvq_edge.errors import OutputError
from hvq_edge.stream.sinks.plant.reject_signal import RejectSignal
from hvq_edge.stream.sinks.sink import TryAgain
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision


class ControllerRefused(OutputError):
    """The controller answered that it does not take this value; the others are as they were."""


class Controller(Protocol):
    """A device that holds a few values; used by one thread."""

    def set_reject(self, on: bool) -> None:
        """Set the reject signal.

        Raises:
            ControllerRefused: the device does not take it.
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

    The reject signal comes first and goes its own way: a value beside it that the controller
    refuses neither changes what is known of the signal nor how long it is held. Run it behind a
    :class:`hvq_edge.stream.sinks.threads.SinkThread` with ``newest``.

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
        """What the controller shows; ``None``: it is not known."""
        self._reached = False
        """The signal was written when it was last tried."""
        self._refused: dict[str, ControllerRefused] = {}
        """What the controller did not take when it was last tried."""
        self._closed = False

    def see(self, decision: Decision) -> None:
        """Let the reject signal follow a decision; :meth:`write` and :meth:`tick` show it."""
        self._signal.see(decision, time.monotonic())

    def write(self, decision: Decision, frame: Frame) -> None:  # noqa: ARG002  # of the protocol
        """Show one decision, which :meth:`see` was told of.

        Raises:
            OutputError: the controller cannot be reached or refuses; :meth:`tick` tries again.
        """
        self._take(reject=self._show, decision=lambda: self._controller.set_decision(decision))

    def tick(self) -> float | None:
        """Let the signal go when its time is over, and beat.

        Raises:
            OutputError: the controller cannot be reached or refuses.
        """
        if self._heartbeat_seconds is not None and time.monotonic() >= self._beat_at:
            self._take(reject=self._show, beat=self._change_heartbeat)
        else:
            self._take(reject=self._show)
        return self._seconds_left()

    def close(self) -> None:
        """Set the signal off, unless it is known to be, and end the connection.

        Raises:
            OutputError: the controller cannot be reached or refuses.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._shown is not False:
                self._set(False)
        finally:
            self._controller.close()

    def _take(self, **steps: Callable[[], None]) -> None:
        """Take steps; one that is refused does not keep the next from being taken.

        Raises:
            OutputError: of what is refused now, or was when it was last tried.
        """
        try:
            for name, step in steps.items():
                self._refused.pop(name, None)
                try:
                    step()
                except ControllerRefused as error:
                    self._refused[name] = error
        except BaseException as error:
            self._shown = None  # a controller that was away may have forgotten it
            left = self._signal.seconds_left(time.monotonic())
            if isinstance(error, OutputError) and left is not None:
                raise TryAgain(error.cause, left, next_step=error.next_step) from error
            raise
        for refusal in self._refused.values():
            left = self._seconds_left()
            seconds = math.inf if left is None else left
            raise TryAgain(refusal.cause, seconds, next_step=refusal.next_step) from refusal

    def _show(self) -> None:
        on = self._signal.on(time.monotonic())
        if on != self._shown:
            self._set(on)
        elif on:
            self._signal.shown(time.monotonic())

    def _set(self, on: bool) -> None:
        self._shown = None  # until it is certain
        worked, self._reached = self._reached, False
        try:
            self._controller.set_reject(on)
        except ControllerRefused:
            raise
        except Exception:
            if not worked:
                raise
            # Perhaps only the connection was dead, as controllers end one that idles between two
            # rejects: this connects anew. Meanwhile the reject's time may be over.
            on = on and self._signal.on(time.monotonic())
            self._controller.set_reject(on)
        self._shown = on
        self._reached = True
        if on:
            self._signal.shown(time.monotonic())

    def _change_heartbeat(self) -> None:
        self._beat = not self._beat
        self._beat_at = time.monotonic() + (self._heartbeat_seconds or 0.0)
        self._controller.beat(self._beat)

    def _seconds_left(self) -> float | None:
        """Return after how long something is due; ``None``: not before the next decision."""
        now = time.monotonic()
        waits = [self._signal.seconds_left(now)]
        if self._heartbeat_seconds is not None:
            waits.append(max(self._beat_at - now, 0.0))
        return min((wait for wait in waits if wait is not None), default=None)
