"""The record of all decisions: hash-chained rows in SQLite, committed in groups."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hvq_edge.common.atomic import output_error
from hvq_edge.errors import OutputError
from hvq_edge.stream.log.chain import (
    FILE,
    NOT_RECORDED,
    SESSION_END,
    SESSION_LOST,
    SESSION_START,
    LogFile,
    LogRow,
    chained,
    decision_row,
    event_row,
    make_log_file,
)
from hvq_edge.stream.log.files import base_of, chain_files, following, head_path, write_head
from hvq_edge.stream.sinks.files.retention import RESERVE_BYTES, check_room
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision

LARGEST_GROUP = 512
"""Rows that are committed at once, however young they are."""


@dataclass(frozen=True)
class LogOptions:
    """How a log is kept."""

    commit_seconds: float = 0.05
    """A decision is on the disk this long after it was made, at the latest."""
    file_bytes: int | None = None
    """A file that has grown to this is followed by a new one; ``None``: it grows on."""
    file_seconds: float | None = None
    """A file whose first row is this old is followed by a new one; ``None``: it grows on."""
    head: Path | None = None
    """Where the last hash is written aside; ``None``: beside the log."""
    head_seconds: float = 10.0
    """How often."""
    reserve_bytes: int = RESERVE_BYTES
    """Left free on the disk."""


@dataclass(frozen=True)
class Session:
    """One run of the inspector, as its first row says it."""

    details: Mapping[str, Any] = field(default_factory=dict)
    """Version, bundle hash, thresholds and whatever else explains the decisions; JSON values."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


class DecisionLog:
    """Appends every decision to the chain; a later run continues it.

    Used by one thread after another: open it, then leave it to a
    :class:`hvq_edge.stream.sinks.threads.SinkThread`. When the disk is full, decisions are
    counted instead of kept, and a row says how many when there is room again.

    Args:
        path: the log's first file; see :func:`hvq_edge.stream.log.files.chain_files`.
        session: this run.
        options: how it is kept.
        on_commit: told the rows after each commit.

    Raises:
        InputError: the file is something else.
        OutputError: it cannot be opened for writing, or another inspector writes to it.
    """

    def __init__(
        self,
        path: Path,
        session: Session,
        options: LogOptions | None = None,
        *,
        on_commit: Callable[[Sequence[LogRow]], None] | None = None,
    ) -> None:
        self.path = base_of(path)
        self.session = session
        self.on_commit = on_commit
        self.on_new_file: Callable[[], object] | None = None
        """Called after a new file has begun: older ones may make room."""
        self._options = options or LogOptions()
        self._head_path = self._options.head or head_path(self.path)
        self._pending: list[LogRow] = []
        self._pending_since = 0.0
        self._unrecorded = 0
        self._unrecorded_since = 0.0
        self._cause = ""
        self._head_due = 0.0
        self._closed = False
        self._last: LogRow
        self._counts = {"pass": 0, "reject": 0, "no_decision": 0}
        self.final_counts: Mapping[str, Any] | None = None
        """What the last row says of the run; by default this log's own counts."""
        self.lost = 0
        """Decisions taken that could not be kept after all."""
        self._lock = self._locked()
        try:
            self._open()
            self._begin_session()
        except BaseException:
            self._lock.release()
            raise

    @property
    def log_id(self) -> str:
        """Names this log among all others; its rows keep their ids for ever."""
        return self._log_id

    @property
    def last(self) -> LogRow:
        """The last row on the disk."""
        return self._last

    @property
    def pending(self) -> int:
        """Decisions taken and not on the disk yet."""
        return sum(row.verdict is not None for row in list(self._pending))

    def write(self, decision: Decision, frame: Frame) -> None:  # noqa: ARG002  # of the protocol
        """Take one decision; :meth:`tick` puts it on the disk.

        Raises:
            OutputError: nothing can be recorded at the moment; the decision is counted.
        """
        if self._unrecorded:
            self._unrecorded += 1
            raise OutputError(self._cause)
        self._add(decision_row(decision, self.session.id))

    def event(self, kind: str, details: Mapping[str, Any]) -> None:
        """Take an event into the chain: a changed threshold, a gap of a camera.

        Args:
            kind: a name of one word.
            details: JSON values.
        """
        self._add(event_row(kind, self.session.id, time.time(), details))

    def tick(self) -> float | None:
        """Commit what is due, and start a new file when the old one is full.

        Raises:
            OutputError: the disk is full or gone. What was pending is lost and counted.
        """
        if self._unrecorded:
            self._resume()
        if not self._pending:
            return None
        age = time.monotonic() - self._pending_since
        if age < self._options.commit_seconds and len(self._pending) < LARGEST_GROUP:
            return self._options.commit_seconds - age
        self._commit()
        if self._file_is_full():
            self._next_file()
        return None

    def close(self) -> None:
        """Commit everything, end the session and write the head aside; twice is fine.

        Raises:
            OutputError: something could not be written.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._unrecorded:
                self._resume()
            counts = dict(self.final_counts or self._counts)
            self._add(event_row(SESSION_END, self.session.id, time.time(), {"counts": counts}))
            self._commit()
            write_head(self._head_path, self._last)
        finally:
            self._file.close()
            self._lock.release()

    def _add(self, row: LogRow) -> None:
        if not self._pending:
            self._pending_since = time.monotonic()
        self._pending.append(row)

    def _commit(self) -> None:
        """Put the pending rows on the disk, all or none."""
        pending = self._pending
        try:
            check_room(self.path.parent, self._options.reserve_bytes)
            self._append(pending)
        except OutputError as error:
            self._cause = error.cause
            self._pending = [row for row in pending if row.verdict is None]  # events are few
            lost = len(pending) - len(self._pending)
            self.lost += lost
            self._unrecorded, self._unrecorded_since = lost, time.time()
            raise
        self._pending = []
        if time.monotonic() >= self._head_due:
            write_head(self._head_path, self._last)
            self._head_due = time.monotonic() + self._options.head_seconds

    def _append(self, new: Sequence[LogRow]) -> None:
        rows: list[LogRow] = []
        for row in new:
            rows.append(chained(row, rows[-1] if rows else self._last))
        self._file.append(rows)
        self._last = rows[-1]
        for row in rows:
            if row.verdict in self._counts:
                self._counts[row.verdict] += 1
        if self.on_commit is not None:
            self.on_commit(rows)

    def _resume(self) -> None:
        """Record again, beginning with how much was not."""
        check_room(self.path.parent, self._options.reserve_bytes)
        self._file.close()
        self._open()  # a disk that was gone may be another one now
        details = {"decisions": self._unrecorded, "since": round(self._unrecorded_since, 6)}
        self._append([event_row(NOT_RECORDED, self.session.id, time.time(), details)])
        self._unrecorded = 0

    def _locked(self) -> FileLock:
        lock = FileLock(  # taken by the thread that opens the log, released by the one that closes
            self.path.with_name(f".{self.path.name}.lock"), thread_local=False
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError(
                f"another inspector is recording to {self.path}.",
                next_step="stop it, or choose another --out",
            ) from error
        except OSError as error:
            raise output_error(self.path, error) from error
        return lock

    def _open(self) -> None:
        """Open the newest file; in a new log, make the first."""
        files = chain_files(self.path)
        if not files:
            make_log_file(self.path, self._first_row(uuid.uuid4().hex))
            files = [self.path]
        self._use(LogFile(files[-1]))

    def _use(self, file: LogFile) -> None:
        self._file = file
        first, self._last = file.first(), file.last()
        self._opened_at = first.time
        self._log_id = str(json.loads(first.more)["log"])

    def _first_row(self, log_id: str, before: LogRow | None = None) -> LogRow:
        """Return a file's first row, which carries the last hash of the file before."""
        details = {"log": log_id, "continues": before is not None}
        session = self.session.id if before else ""
        return chained(event_row(FILE, session, time.time(), details), before)

    def _begin_session(self) -> None:
        rows = []
        former = self._file.last_of((FILE, SESSION_START, SESSION_END, SESSION_LOST))
        open_kinds = (SESSION_START, FILE)
        if former.kind in open_kinds and former.session:
            details = {"last_id": self._last.id, "last_time": self._last.time}
            rows.append(event_row(SESSION_LOST, former.session, time.time(), details))
        rows.append(event_row(SESSION_START, self.session.id, time.time(), self.session.details))
        self._append(rows)
        write_head(self._head_path, self._last)

    def _file_is_full(self) -> bool:
        options = self._options
        if options.file_bytes is not None and self._file.bytes >= options.file_bytes:
            return True
        age = time.time() - self._opened_at
        return options.file_seconds is not None and age >= options.file_seconds

    def _next_file(self) -> None:
        path = following(self._file.path)
        make_log_file(path, self._first_row(self._log_id, self._last))
        self._file.close()
        self._use(LogFile(path))
        if self.on_commit is not None:
            self.on_commit([self._last])
        if self.on_new_file is not None:
            self.on_new_file()
