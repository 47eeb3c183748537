"""Sinks on threads of their own: however slow or broken one is, inspection goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from hvq_edge.errors import HvqEdgeError
from hvq_edge.stream.log.chain import LogFile
from hvq_edge.stream.log.decision_log import DecisionLog
from hvq_edge.stream.log.events import EventWatch
from hvq_edge.stream.log.files import chain_files
from hvq_edge.stream.sinks.sink import BufferingSink, Sink, TickingSink
from hvq_edge.stream.sources.source import Frame
from hvq_edge.stream.statistics import SinkStatistics
from hvq_edge.verdict.decision import Decision

if TYPE_CHECKING:
    from hvq_edge.stream.sinks.network.delivery import Delivery

logger = logging.getLogger(__name__)

WhenFull = Literal["wait", "drop", "newest"]
"""``wait``: back-pressure, nothing is lost. ``drop``: the new decision is lost. ``newest``: those
that wait give way to the new one, for outputs that show a state and not a history."""

Report = Callable[[str, str], None]
"""Told a sink's name and what is wrong with it, once for each fault."""

RETRY_SECONDS = 1.0
"""How long a sink with a fault is left alone between decisions."""

SILENT_SECONDS = 60.0
"""A fault that comes and goes is reported this often at most."""

CLOSE_SECONDS = 1.5
"""All sinks of a live camera may take this long to close: SIGTERM must end within 2 s."""
LEAST_CLOSE_SECONDS = 0.4
"""The sinks get at least this long, because the log has to be committed."""


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
        self._report = report or log_fault
        self._check = check
        self._ends_at_fault = ends_at_fault
        self._wanted = wanted
        self._images = images
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Decision, Frame] | Callable[[], None]] = deque()
        self._written = 0
        self._dropped = 0
        self._in_hand = 0
        self._fault = ""
        self._reported = ""
        self._reported_at = 0.0
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
            while self._when_full == "wait" and self._full and not self._closing:
                self._changed.wait()
            if self._closing or self._ended or (self._full and self._when_full == "drop"):
                self._dropped += 1
                return
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
                fault=self._fault,
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
                self._fault = self._fault or f"it did not finish within {timeout:g} s"

    @property
    def _full(self) -> bool:
        return len(self._waiting) >= self._capacity

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing and not self._tick_due:
                    self._changed.wait(self._seconds_to_tick)
                if not self._waiting and self._closing:
                    break
                item = self._waiting.popleft() if self._waiting else None
                self._in_hand = int(isinstance(item, tuple))
                self._changed.notify_all()
            if isinstance(item, tuple):
                self._take(*item)
            elif item is not None:
                self._guarded(item)
            if self._tick_due or (item is not None and not self._fault):
                self._tick()
        self._end()

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

        if self._guarded(tick) and seconds is not None:
            self._tick_at = time.monotonic() + seconds

    def _guarded(self, function: Callable[[], None]) -> bool:
        """Call a function of the sink; return whether it went well."""
        try:
            function()
        except Exception as error:  # a defect of a sink must not end the inspection either
            self._fail(error)
            return False
        with self._changed:
            if not self._ended:
                self._fault = ""
        return True

    def _fail(self, error: Exception) -> None:
        cause = (
            error.cause if isinstance(error, HvqEdgeError) else f"{type(error).__name__}: {error}"
        )
        now = time.monotonic()
        with self._changed:
            again = cause == self._reported and now - self._reported_at < SILENT_SECONDS
            new = not self._fault and not again
            self._fault = cause
            if new:
                self._reported, self._reported_at = cause, now
        if self._tick_at is None:
            self._tick_at = now + RETRY_SECONDS
        if self._ends_at_fault:
            self._end()
        if new:
            self._report(self.name, cause)

    def _end(self) -> None:
        """Close the sink, once."""
        with self._changed:
            if self._ended:
                return
            self._ended = True
        try:
            self._sink.close()
        except Exception as error:
            self._fail(error)

    @property
    def _tick_due(self) -> bool:
        return self._tick_at is not None and time.monotonic() >= self._tick_at

    @property
    def _seconds_to_tick(self) -> float | None:
        return None if self._tick_at is None else max(self._tick_at - time.monotonic(), 0.0)


def log_fault(name: str, cause: str) -> None:
    """Log a sink's fault: what is done where nobody else is told."""
    logger.warning("%s: %s", name, cause)


def _without_image(frame: Frame) -> Frame:
    fault = frame.fault or "the image is not kept here"
    return replace(frame, image=None, fault=fault)


class OpenSinks:
    """All sinks of a run behind one, each on its own thread.

    Opened by :func:`hvq_edge.stream.sinks.open_sinks.open_sinks`.
    """

    def __init__(self) -> None:
        self.threads: list[SinkThread] = []
        """Each takes decisions."""
        self.deliveries: list[Delivery] = []
        """Each reads them from the log."""
        self.log: DecisionLog | None = None
        self.log_thread: SinkThread | None = None
        """One of :attr:`threads`."""
        self.watch = EventWatch()
        """Finds the events that go into the log."""
        self._closed = False

    def write(self, decision: Decision, frame: Frame) -> None:
        """Hand a decision to every sink; what happened before it goes into the log."""
        for kind, details in self.watch.before(decision, frame):
            self.event(kind, details)
        for thread in self.threads:
            thread.write(decision, frame)

    def event(self, kind: str, details: Mapping[str, Any]) -> None:
        """Put an event into the decision log, after the decisions so far.

        Args:
            kind: one word.
            details: JSON values.
        """
        log, thread = self.log, self.log_thread
        if log is not None and thread is not None:
            thread.call(lambda: log.event(kind, dict(details)))

    def statistics(self) -> tuple[SinkStatistics, ...]:
        """Return every sink's counts and fault."""
        return tuple(
            [thread.statistics() for thread in self.threads]
            + [delivery.statistics() for delivery in self.deliveries]
        )

    def close(
        self, seconds: float | None = CLOSE_SECONDS, counts: Mapping[str, Any] | None = None
    ) -> None:
        """Drain and close everything; a second call tidies up and waits for nothing.

        Args:
            seconds: for all together; ``None``: as long as it takes, which is right for files.
            counts: of the run, for the log's last row.
        """
        if self._closed:
            seconds = 0.0
        self._closed = True
        end = None if seconds is None else time.monotonic() + seconds
        if self.log is not None and counts is not None:
            self.log.final_counts = counts
        for thread in self.threads:
            thread.begin_close()
        if self.log_thread is not None:  # what it commits last is still sent
            self.log_thread.close(_left(end))
        for delivery in self.deliveries:
            delivery.begin_close()
        for thread in self.threads:
            thread.close(_left(end))
        for delivery in self.deliveries:
            delivery.close(_left(end))
        if self.log is not None and self.deliveries:
            # The readers were the last to close, and they cannot tidy up: open it once more.
            with suppress(HvqEdgeError):
                LogFile(chain_files(self.log.path)[-1]).close()


def _left(end: float | None) -> float | None:
    return None if end is None else max(end - time.monotonic(), 0.0)
