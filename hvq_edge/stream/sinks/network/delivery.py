"""Sends decisions from the log to a receiver on the network. None is lost while it is down.

A decision is accepted when its row is on the disk. From there a thread of its own sends it, again
and again if need be, and keeps a cursor in the log's database; so a dead receiver slows nothing,
and a kill at any moment at most sends something twice. Each event has an id to tell that by.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tenacity import RetryCallState, Retrying, retry_if_not_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from hvq_edge.errors import HvqEdgeError
from hvq_edge.stream.log.chain import LogRow, fields_of
from hvq_edge.stream.log.deliveries import Deliveries, Progress
from hvq_edge.stream.log.reader import RowsAfter
from hvq_edge.stream.sinks.threads import Report, log_fault
from hvq_edge.stream.statistics import SinkStatistics

LONGEST_WAIT_SECONDS = 30.0
"""Between two attempts; they start at half a second, and each wait is drawn at random up to its
limit so that many inspectors do not come back to a receiver at once."""

_FIRST_WAIT_SECONDS = 0.5
_IDLE_SECONDS = 1.0


class DeliveryFailed(Exception):
    """A receiver did not take a batch; it is sent again."""


class DeliveryRefused(Exception):
    """A receiver will never take this batch as it is."""


class Receiver(Protocol):
    """Sends batches; used by one thread."""

    def deliver(self, events: Sequence[dict[str, Any]]) -> None:
        """Send events in order; return when the receiver has all of them.

        Raises:
            DeliveryFailed: it may have some or none.
            DeliveryRefused: it has none and says that it never will.
        """
        ...

    def close(self) -> None:
        """End the connection; calling it twice is fine."""
        ...


class Delivery:
    """Sends a log's decisions to a receiver, on a thread of its own.

    A receiver named for the first time gets what is decided from then on.

    Args:
        log: the log's first file, which exists.
        log_id: names the log in the events' ids.
        name: of the receiver: its cursor and its statistics.
        receiver: closed at the end.
        verdicts: of the decisions that it gets.
        batch: events sent at once, at most.
        report: told once of each fault, on the thread.
        longest_wait: seconds between two attempts, at most.
    """

    def __init__(
        self,
        log: Path,
        log_id: str,
        name: str,
        receiver: Receiver,
        *,
        verdicts: Sequence[str],
        batch: int = 50,
        report: Report | None = None,
        longest_wait: float = LONGEST_WAIT_SECONDS,
    ) -> None:
        self.name = name
        self._log_id = log_id
        self._receiver = receiver
        self._verdicts = frozenset(verdicts)
        self._batch = batch
        self._report = report or log_fault
        self._longest_wait = longest_wait
        self._rows = RowsAfter(log, verdicts)
        self._deliveries = Deliveries(log)
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._fault = ""
        former = self._deliveries.read(name)
        if former is None:
            former = Progress(self._rows.last_id())
            self._deliveries.write(name, former)
        self._progress = self._kept = former
        self._cursor = former.cursor
        self._accepted = former.delivered + former.dropped + self._rows.count(former.cursor)
        self._rows.close()
        self._thread = threading.Thread(target=self._run, name=f"sink {name}", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def committed(self, rows: Sequence[LogRow]) -> None:
        """Learn of rows that are on the disk now; called by the log's thread."""
        new = sum(row.verdict in self._verdicts for row in rows)
        if new:
            with self._changed:
                self._accepted += new
                self._changed.notify_all()

    def statistics(self) -> SinkStatistics:
        """Counts since the receiver was first named: ``waiting`` is what stands in the log."""
        with self._changed:
            delivered, dropped = self._progress.delivered, self._progress.dropped
            waiting = self._accepted - delivered - dropped
            return SinkStatistics(self.name, delivered, dropped, waiting, self._fault)

    def begin_close(self) -> None:
        """End after the batch in hand; does not wait."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()

    def close(self, timeout: float | None = None) -> None:
        """End; what was not sent is sent after the next start.

        Args:
            timeout: seconds to wait for the batch in hand; ``None``: as long as it takes.
        """
        self.begin_close()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                if not self._send_next():
                    with self._changed:
                        if self._waiting_count == 0 or self._fault:
                            self._changed.wait(_IDLE_SECONDS)
            while self._send_last():
                pass
        finally:
            self._keep()
            self._rows.close()
            self._receiver.close()

    @property
    def _waiting_count(self) -> int:
        return self._accepted - self._progress.delivered - self._progress.dropped

    def _send_next(self) -> bool:
        """Send one batch; return whether there was one."""
        try:
            rows, cursor = self._rows.read(self._cursor, self._batch)
        except (HvqEdgeError, sqlite3.Error) as error:
            self._fail(str(error))
            return False
        if rows and not self._retried([self._event(row) for row in rows]):
            return False
        self._cursor = cursor
        if rows:
            self._keep()
        return bool(rows)

    def _send_last(self) -> bool:
        """Send what still waits at the end: one attempt a batch, until the first that fails."""
        if self._fault or self._waiting_count == 0:
            return False
        return self._send_next()

    def _retried(self, events: Sequence[dict[str, Any]]) -> bool:
        """Send a batch until it is done with; return ``False`` when the end came first."""
        retrying = Retrying(
            retry=retry_if_not_exception_type(DeliveryRefused),
            wait=wait_random_exponential(multiplier=_FIRST_WAIT_SECONDS, max=self._longest_wait),
            stop=stop_when_event_set(self._closing),
            sleep=sleep_using_event(self._closing),
            before_sleep=self._note,
            reraise=True,
        )
        try:
            retrying(self._receiver.deliver, events)
        except DeliveryRefused as error:
            return self._refused(events, error)
        except Exception as error:  # a defect of a receiver must not end the thread
            self._fail(_cause(error))
            return False
        with self._changed:
            self._fault = ""
            before = self._progress
            self._progress = Progress(before.cursor, before.delivered + len(events), before.dropped)
        return True

    def _refused(self, events: Sequence[dict[str, Any]], error: DeliveryRefused) -> bool:
        """Find the events that are not wanted, so that the others get through."""
        if len(events) > 1:
            return all(self._retried([event]) for event in events)
        self._fail(f"it refused decision {events[0]['id']} for good: {error}")
        with self._changed:
            before = self._progress
            self._progress = Progress(before.cursor, before.delivered, before.dropped + 1)
        return True

    def _event(self, row: LogRow) -> dict[str, Any]:
        return {"id": f"{self._log_id}:{row.id}", **fields_of(row)}

    def _keep(self) -> None:
        """Write the cursor down, if it moved."""
        progress = Progress(self._cursor, self._progress.delivered, self._progress.dropped)
        if progress == self._kept:
            return
        try:
            self._deliveries.write(self.name, progress)
            self._kept = progress
        except HvqEdgeError as error:
            self._fail(error.cause)

    def _note(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._fail(_cause(error))

    def _fail(self, cause: str) -> None:
        with self._changed:
            new = not self._fault
            self._fault = cause
        if new:
            self._report(self.name, cause)


def _cause(error: BaseException | None) -> str:
    return str(error) if isinstance(error, DeliveryFailed) else f"{type(error).__name__}: {error}"
