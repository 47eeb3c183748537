"""Sends decisions from the log to a receiver on the network. None is lost while it is down.

A decision is accepted when its row is on the disk. From there a thread of its own sends it, again
and again if need be, and keeps a cursor in the log's database; so a dead receiver slows nothing,
and a kill at any moment at most sends something twice. Each event has an id to tell that by.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tenacity import RetryCallState, Retrying, retry_if_not_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from hvq_edge.errors import HvqEdgeError
from hvq_edge.stream.log.chain import FILE, LogRow, fields_of
from hvq_edge.stream.log.deliveries import Deliveries, Progress
from hvq_edge.stream.log.reader import RowsAfter
from hvq_edge.stream.log.sqlite_file import translated
from hvq_edge.stream.sinks.faults import Report, SinkFault
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


@runtime_checkable
class ConnectedReceiver(Receiver, Protocol):
    """A receiver whose connection is there before the first event and between two."""

    def keep_up(self) -> None:
        """Connect where there is no connection; called every second while nothing is sent.

        Raises:
            DeliveryFailed: the receiver is away; it is tried again.
        """
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
        self._longest_wait = longest_wait
        self._rows = RowsAfter(log, verdicts)
        self._deliveries = Deliveries(log)
        self._lock = threading.Lock()
        self._new = threading.Event()
        """There may be something to do."""
        self._closing = threading.Event()
        self._fault = SinkFault(name, report)
        self._another: tuple[str, Progress] | None = None
        """Id of a log that took the place of this one, and where it begins."""
        with translated(log):
            last = self._rows.last_id()
            former = self._deliveries.read(name)
            if former is None:
                former = Progress(last)
                self._deliveries.write(name, former)
            # After the end of a log was cut off, its next rows have ids that were used before.
            former = replace(former, cursor=min(former.cursor, last))
            self._accepted = former.delivered + former.dropped + self._rows.count(former.cursor)
        self._progress = former
        self._kept: Progress | None = former
        self._rows.close()
        self._thread = threading.Thread(target=self._run, name=f"sink {name}", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def committed(self, rows: Sequence[LogRow]) -> None:
        """Learn of rows that are on the disk now; called by the log's thread."""
        with self._lock:
            for row in rows:
                if row.kind == FILE:
                    self._begun(row)
                self._accepted += row.verdict in self._verdicts
        self._new.set()

    def statistics(self) -> SinkStatistics:
        """Counts since the receiver was first named: ``waiting`` is what stands in the log."""
        with self._lock:
            delivered, dropped = self._progress.delivered, self._progress.dropped
            waiting = self._accepted - delivered - dropped
            fault = self._fault.cause
        if self._thread.ident and not self._thread.is_alive() and not self._closing.is_set():
            fault = fault or "its thread has ended"
        return SinkStatistics(self.name, delivered, dropped, waiting, fault)

    def begin_close(self) -> None:
        """End after the batch in hand; does not wait."""
        self._closing.set()
        self._new.set()

    def close(self, timeout: float | None = None) -> None:
        """End; what was not sent is sent after the next start.

        Args:
            timeout: seconds to wait for the batch in hand; ``None``: as long as it takes.
        """
        self.begin_close()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._new.clear()
            if not self._turn():
                self._new.wait(_IDLE_SECONDS)
        # What still waits at the end: one attempt a batch, until the first that fails.
        while self._waiting_count and not self._fault.cause and self._turn():
            pass
        for tidy in (self._keep, self._rows.close, self._receiver.close):
            try:
                tidy()
            except Exception as error:  # noqa: BLE001  # the others close all the same
                self._fault.set(_cause(error))

    @property
    def _waiting_count(self) -> int:
        return self._accepted - self._progress.delivered - self._progress.dropped

    def _turn(self) -> bool:
        """Send one batch; return whether there was one. Whatever goes wrong is tried again."""
        try:
            self._change_log()
            rows, cursor = self._rows.read(self._progress.cursor, self._batch)
            if rows:
                self._send(rows)
            elif not self._closing.is_set():
                self._idle()
            self._count(cursor)
            self._keep()
        except Exception as error:  # noqa: BLE001  # of any kind: the thread must go on
            self._rows.close()  # the file may be another one when it is tried again
            self._fault.set(_cause(error))
            return False
        return bool(rows)

    def _idle(self) -> None:
        if isinstance(self._receiver, ConnectedReceiver):
            self._retried(self._receiver.keep_up)
        self._fault.clear()

    def _send(self, rows: Sequence[LogRow]) -> None:
        """Send rows until the receiver is done with all of them.

        Raises:
            Exception: what the receiver raised last, when the end came first.
        """
        events, unreadable = [], []
        for row in rows:
            try:
                events.append(self._event(row))
            except (ValueError, TypeError, RecursionError) as error:
                unreadable.append(f"decision {self._id_of(row)} cannot be read: {_cause(error)}")
        try:
            if events:
                self._retried(self._receiver.deliver, events)
        except DeliveryRefused as error:
            if len(rows) > 1:  # find those that are not wanted, so that the others get through
                for row in rows:
                    self._send([row])
                return
            unreadable.append(f"it refused decision {self._id_of(rows[0])} for good: {error}")
            events = []
        self._count(rows[-1].id, len(events), len(unreadable))
        for cause in unreadable:
            self._fault.set(cause)

    def _retried(self, function: Callable[..., None], *arguments: object) -> None:
        """Call a function of the receiver until it goes well, or the end comes first.

        Raises:
            DeliveryRefused: of the receiver.
            Exception: what it raised last, when the end came first.
        """
        retrying = Retrying(
            retry=retry_if_not_exception_type(DeliveryRefused),
            wait=wait_random_exponential(multiplier=_FIRST_WAIT_SECONDS, max=self._longest_wait),
            stop=stop_when_event_set(self._closing),
            sleep=sleep_using_event(self._closing),
            before_sleep=self._note,
            reraise=True,
        )
        retrying(function, *arguments)
        self._fault.clear()

    def _event(self, row: LogRow) -> dict[str, Any]:
        """Return what is sent of a row.

        Raises:
            ValueError: JSON cannot hold it; likewise ``TypeError`` and ``RecursionError``.
        """
        event = {**fields_of(row), "id": self._id_of(row)}
        json.dumps(event, ensure_ascii=False, allow_nan=False).encode("utf-8")
        return event

    def _id_of(self, row: LogRow) -> str:
        return f"{self._log_id}:{row.id}"

    def _count(self, cursor: int, delivered: int = 0, dropped: int = 0) -> None:
        with self._lock:
            before = self._progress
            self._progress = Progress(
                cursor, before.delivered + delivered, before.dropped + dropped
            )

    def _begun(self, first: LogRow) -> None:
        """See whether a file that has begun is of another log, whose ids begin anew."""
        log_id = str(json.loads(first.more)["log"])
        if log_id != (self._another[0] if self._another else self._log_id):
            # What of the former log waits now is not there any more.
            self._another = log_id, Progress(first.id, dropped=self._accepted)

    def _change_log(self) -> None:
        with self._lock:
            if self._another is None:
                return
            self._log_id, begin = self._another
            self._another = None
            delivered = self._progress.delivered
            dropped = max(begin.dropped - delivered, self._progress.dropped)
            self._progress = Progress(begin.cursor, delivered, dropped)
            self._kept = None
        self._rows.close()

    def _keep(self) -> None:
        """Write the cursor down, if it moved.

        Raises:
            OutputError: it cannot be written; what was delivered may be delivered again.
        """
        progress = self._progress
        if progress != self._kept:
            self._deliveries.write(self.name, progress)
            self._kept = progress

    def _note(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._fault.set(_cause(error))


def _cause(error: BaseException | None) -> str:
    if isinstance(error, HvqEdgeError):
        return error.cause
    return str(error) if isinstance(error, DeliveryFailed) else f"{type(error).__name__}: {error}"
