"""Sinks on threads of their own: however slow or broken one is, inspection goes on."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from hvq_edge.errors import HvqEdgeError
from hvq_edge.stream.sinks.faults import Report, SinkFault
from hvq_edge.stream.sinks.sink import (
    BufferingSink,
    CountingSink,
    SeeingSink,
    Sink,
    TickingSink,
    TryAgain,
)
from hvq_edge.stream.sources.source import Frame
from hvq_edge.stream.statistics import SinkStatistics
from hvq_edge.verdict.decision import Decision

WhenFull = Literal["wait", "drop", "newest"]
"""``wait``: back-pressure, nothing is lost. ``drop``: the new decision is lost. ``newest``: those
that wait give way to the new one, for outputs that show a state and not a history."""

RETRY_SECONDS = 1.0
"""How long a sink with a fault is left alone between decisions."""


class SinkThread:
    """Runs a sink behind a bounded queue; itself a sink, thread-safe.

    An error of the sink is kept as its fault, reported once, and ends with the next decision that
    goes well. Each decision it cost is counted as dropped. A sink that cannot go on after an error
    (``ends_at_fault``) is closed instead, so that what it has is whole.

    Args:
        sink: called on the thread alone, :meth:`Sink.close` included.
        name: for statistics and messages.
        when_full: what happens to a decision that finds the queue full.
        capacity: decisions that may wait; 1 is enough for ``newest``.
        report: told of faults, on the sink's thread; default: they are logged.
        check: called before each decision; raises ``OutputError`` where the sink must not write,
            as on a disk that is nearly full.
        ends_at_fault: whether the first error closes the sink.
        wanted: tells the decisions that the sink does something about; the others count as written
            at once and take no room in the queue.
        images: whether the sink looks at images and maps. Where it does not, they are not kept
            waiting with their decisions, and many more of these may wait in the same memory.
    """

    def __init__(
        self,
        sink: Sink,
        name: str,
        when_full: WhenFull = "drop",
        capacity: int = 64,
        *,
        report: Report | None = None,
        check: Callable[[], None] | None = None,
        ends_at_fault: bool = False,
        wanted: Callable[[Decision], bool] | None = None,
        images: bool = True,
    ) -> None:
        self.name = name
        self._sink = sink
        self._when_full = when_full
        self._capacity = capacity
        self._check = check
        self._ends_at_fault = ends_at_fault
        self._wanted = wanted
        self._images = images
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Decision, Frame] | Callable[[], None]] = deque()
        self._written = 0
        self._dropped = 0
        self._missed = 0
        """Of those dropped, the ones that the sink has not been told of."""
        self._missed_since = 0.0
        self._in_hand = 0
        self._fault = SinkFault(name, report)
        self._closing = False
        self._ended = False
        self._tick_at = time.monotonic() if isinstance(sink, TickingSink) else None
        self._thread = threading.Thread(target=self._run, name=f"sink {name}", daemon=True)
        self._thread.start()

    def write(self, decision: Decision, frame: Frame) -> None:
        """Hand one decision over; never raises what the sink raises."""
        if self._wanted is not None and not self._wanted(decision):
            with self._changed:
                self._written += 1
            return
        if not self._images:
            decision, frame = replace(decision, map=None), _without_image(frame)
        with self._changed:
            while self._when_full == "wait" and self._full and not (self._closing or self._ended):
                self._changed.wait()
            if self._closing or self._ended or (self._full and self._when_full == "drop"):
                self._dropped += 1
                self._missed_since = self._missed_since if self._missed else time.time()
                self._missed += 1
                return
            if isinstance(self._sink, SeeingSink):
                self._sink.see(decision)
            if self._when_full == "newest":
                self._dropped += sum(isinstance(item, tuple) for item in self._waiting)
                self._waiting = deque(item for item in self._waiting if callable(item))
            self._waiting.append((decision, frame))
            self._changed.notify_all()

    def call(self, function: Callable[[], None]) -> None:
        """Run a function of the sink on its thread, after the decisions handed over so far."""
        with self._changed:
            if not self._closing:
                self._waiting.append(function)
                self._changed.notify_all()

    def statistics(self) -> SinkStatistics:
        """Every decision handed over is in one of the counts."""
        with self._changed:
            pending = lost = 0
            if isinstance(self._sink, BufferingSink):
                pending, lost = self._sink.pending, self._sink.lost
            waiting = sum(isinstance(item, tuple) for item in self._waiting) + self._in_hand
            written = self._written - pending - lost
            counted_twice = max(-written, 0)  # in hand here and pending there
            return SinkStatistics(
                name=self.name,
                written=written + counted_twice,
                dropped=self._dropped + lost,
                waiting=waiting + pending - counted_twice,
                fault=self._fault.cause,
            )

    def begin_close(self) -> None:
        """Take no more decisions and finish; does not wait."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self, timeout: float | None = None) -> None:
        """Drain the queue and close the sink; what has not got through in time is dropped.

        Args:
            timeout: seconds to wait; ``None``: as long as it takes. A thread that hangs is left
                behind; it does not keep the process alive.
        """
        self.begin_close()
        self._thread.join(timeout)
        if self._thread.is_alive():
            with self._changed:
                self._dropped += sum(isinstance(item, tuple) for item in self._waiting)
                self._waiting.clear()
            if not self._fault.cause:
                self._fault.set(f"it did not finish within {timeout:g} s")

    @property
    def _full(self) -> bool:
        return len(self._waiting) >= self._capacity

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001  # told as the sink's fault
            self._fault.set(f"its thread has ended: {_cause(error)}")
        finally:
            with self._changed:  # nothing is taken any more, and nobody waits for room
                self._ended = True
                self._dropped += sum(isinstance(item, tuple) for item in self._waiting)
                self._dropped += self._in_hand
                self._in_hand = 0
                self._waiting.clear()
                self._changed.notify_all()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing and not self._tick_due:
                    self._changed.wait(self._seconds_to_tick)
                if not self._waiting and self._closing:
                    break
                item = self._waiting.popleft() if self._waiting else None
                self._in_hand = int(isinstance(item, tuple))
                self._changed.notify_all()
            self._tell_missed()
            if isinstance(item, tuple):
                self._take(*item)
            elif item is not None:
                self._guarded(item)
            if self._tick_due or (item is not None and not self._fault.cause):
                self._tick()
        self._tell_missed()
        self._end()

    def _tell_missed(self) -> None:
        with self._changed:
            missed, since = self._missed, self._missed_since
            self._missed = 0
        sink = self._sink
        if missed and isinstance(sink, CountingSink):
            self._guarded(lambda: sink.missed(missed, since))

    def _take(self, decision: Decision, frame: Frame) -> None:
        def write() -> None:
            if self._check is not None:
                self._check()
            self._sink.write(decision, frame)

        went_well = not self._ended and self._guarded(write)
        with self._changed:
            self._in_hand = 0
            self._written += went_well
            self._dropped += not went_well

    def _tick(self) -> None:
        self._tick_at = None
        if not isinstance(self._sink, TickingSink) or self._ended:
            return
        sink, seconds = self._sink, None

        def tick() -> None:
            nonlocal seconds
            seconds = sink.tick()

        if self._guarded(tick, keeps=True) and seconds is not None:
            self._tick_at = time.monotonic() + seconds

    def _guarded(self, function: Callable[[], None], *, keeps: bool = False) -> bool:
        """Call a function of the sink; return whether it went well."""
        try:
            function()
        except BaseException as error:  # noqa: BLE001  # a sink's fault must not end its thread
            self._fail(error)
            return False
        # What a sink only buffers says nothing of its fault: the tick that keeps it does.
        if not self._ended and (keeps or not isinstance(self._sink, BufferingSink)):
            self._fault.clear()
        return True

    def _fail(self, error: BaseException) -> None:
        wait = min(error.seconds, RETRY_SECONDS) if isinstance(error, TryAgain) else RETRY_SECONDS
        again = time.monotonic() + wait
        self._tick_at = again if self._tick_at is None else min(self._tick_at, again)
        if self._ends_at_fault:
            self._end()
        self._fault.set(_cause(error))

    def _end(self) -> None:
        """Close the sink, once."""
        with self._changed:
            if self._ended:
                return
            self._ended = True
        try:
            self._sink.close()
        except BaseException as error:  # noqa: BLE001  # told as the sink's fault
            self._fail(error)

    @property
    def _tick_due(self) -> bool:
        return self._tick_at is not None and time.monotonic() >= self._tick_at

    @property
    def _seconds_to_tick(self) -> float | None:
        return None if self._tick_at is None else max(self._tick_at - time.monotonic(), 0.0)


def _cause(error: BaseException) -> str:
    return error.cause if isinstance(error, HvqEdgeError) else f"{type(error).__name__}: {error}"


def _without_image(frame: Frame) -> Frame:
    fault = frame.fault or "the image is not kept here"
    return replace(frame, image=None, fault=fault)
