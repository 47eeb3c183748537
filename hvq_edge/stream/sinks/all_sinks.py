"""All sinks of a run: one call gives a decision to each, one closes them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hvq_edge.errors import HvqEdgeError, OutputError
from hvq_edge.stream.log.decision_log import DecisionLog
from hvq_edge.stream.log.events import EventWatch
from hvq_edge.stream.log.files import chain_files
from hvq_edge.stream.log.sqlite_file import settle
from hvq_edge.stream.sinks.threads import SinkThread
from hvq_edge.stream.sources.source import Frame
from hvq_edge.stream.statistics import SinkStatistics
from hvq_edge.verdict.decision import Decision

if TYPE_CHECKING:
    from hvq_edge.stream.sinks.network.delivery import Delivery

CLOSE_SECONDS = 1.5
"""All sinks of a live camera may take this long to close: SIGTERM must end within 2 s."""
RECORD_SECONDS = 5.0
"""How long a person waits for a row to be on the disk."""
LEAST_CLOSE_SECONDS = 0.4
"""The sinks get at least this long, because the log has to be committed."""


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

    @property
    def closed(self) -> bool:
        """Whether nothing is taken any more."""
        return self._closed

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

    def record(self, kind: str, details: Mapping[str, Any]) -> int:
        """Put an event into the decision log from any thread, and wait until it is on the disk.

        Args:
            kind: one word.
            details: JSON values.

        Returns:
            Id of its row.

        Raises:
            OutputError: it is not recorded; or the disk hangs, and that is not known.
        """
        log, thread = self.log, self.log_thread
        done: Future[int] = Future()

        def write() -> None:
            if log is None or not done.set_running_or_notify_cancel():
                return
            try:
                done.set_result(log.record(kind, details))
            except BaseException as error:
                done.set_exception(error)
                raise  # it is a fault of the log as well

        if thread is not None:
            thread.call(write)
        try:
            return done.result(RECORD_SECONDS)
        except NotInTime:  # another class than the built-in one in Python 3.10
            unknown = done.running() and not done.done()
            done.cancel()
            raise OutputError(
                "the decision log does not answer"
                + (": whether this is recorded is not known." if unknown else "."),
                next_step="see what the live page says of the output log, then try again",
            ) from None

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
        if self.log is not None and self.log_thread is None:  # a signal came between the two
            self.log.close()
        if self.log_thread is not None:  # what it commits last is still sent
            self.log_thread.close(_left(end))
        for delivery in self.deliveries:
            delivery.begin_close()
        for thread in self.threads:
            thread.close(_left(end))
        for delivery in self.deliveries:
            delivery.close(_left(end))
        if self.log is not None:
            # Readers were perhaps the last to close, and they cannot tidy up: open it once more.
            with suppress(HvqEdgeError, OSError):
                for path in chain_files(self.log.path):
                    settle(path)


def _left(end: float | None) -> float | None:
    return None if end is None else max(end - time.monotonic(), 0.0)
