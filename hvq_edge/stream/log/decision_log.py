"""The record of all decisions: hash-chained rows in SQLite, committed in groups."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hvq_edge.common.atomic import check_writable, output_error
from hvq_edge.errors import HvqEdgeError, InputError, OutputError
from hvq_edge.stream.log.chain import (
    FILE,
    HEAD_MISMATCH,
    LAST_ID,
    NOT_RECORDED,
    SESSION_END,
    SESSION_LOST,
    SESSION_START,
    LogRow,
    chained,
    decision_row,
    event_row,
    file_row,
    log_id_of,
)
from hvq_edge.stream.log.files import base_of, chain_files, following, lock_log
from hvq_edge.stream.log.head import (
    LogHead,
    check_head_place,
    head_path,
    keep_aside,
    lead_to_head,
    newest_head,
    write_head,
)
from hvq_edge.stream.log.sqlite_file import (
    LogFile,
    LogLocked,
    LogMoved,
    identity_of,
    make_log_file,
    settle,
)
from hvq_edge.stream.log.verification import doubt_of
from hvq_edge.stream.sinks.files.retention import RESERVE_BYTES, check_room
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision

LARGEST_GROUP = 512
"""Rows that are committed at once, however young they are."""
MOST_PENDING = 4096
"""Rows that may wait in memory for a lock of another program."""
LOCK_SECONDS = 30.0
"""How long the end of a log waits for such a lock, at most."""
PAUSE_SECONDS = 0.1
"""Between two attempts, where the failed one took no time."""


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
    waits: bool = False
    """Whether the source waits while another program keeps the log locked; else decisions beyond
    :data:`MOST_PENDING` are counted instead of kept."""


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
    counted instead of kept, and a row says how many when there is room again. While another program
    keeps it locked, and when its file was moved or removed, decisions wait in memory: for the lock,
    or for the new log that begins in its place.

    Args:
        path: the log's first file; see :func:`hvq_edge.stream.log.files.chain_files`.
        session: this run.
        options: how it is kept.
        on_commit: told the rows after each commit.

    Raises:
        InputError: the file is something else, or what stands in the head's place is not its own.
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
        self._refuses = False
        """The disk is full or gone: nothing is taken until it is back."""
        self._moved = False
        """The file in hand is no longer the one at its path."""
        self._head_due = 0.0
        self._closed = False
        self._last: LogRow
        self._kept: LogRow
        """The last row that this run has written."""
        self._counts = {"pass": 0, "reject": 0, "no_decision": 0}
        self.final_counts: Mapping[str, Any] | None = None
        """What the last row says of the run; by default this log's own counts."""
        self.lost = 0
        """Decisions taken that could not be kept after all."""
        check_head_place(self.path, self._head_path)
        self._take_lock()
        try:
            self._open()
            try:
                head = newest_head(self.path, self._head_path)
            except InputError:
                head = None
            self._begin_session(head)
        except BaseException:  # of a signal as well, which may come before the cameras run
            # What is on the disk counts: it may have come between a commit and our note of it.
            with suppress(HvqEdgeError, AttributeError):  # there may be no file in hand yet
                self._last = self._file.last()
                if (self._last.kind, self._last.session) == (SESSION_START, self.session.id):
                    self.close()
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
        row = decision_row(decision, self.session.id)
        while self._options.waits and not self._refuses and len(self._pending) >= MOST_PENDING:
            try:
                self._commit_after_lock(LOCK_SECONDS)
            except HvqEdgeError as error:
                self._cause = error.cause
                time.sleep(PAUSE_SECONDS)
        if self._refuses or len(self._pending) >= MOST_PENDING:
            self.missed(1, time.time())
            raise OutputError(self._cause)
        self._add(row)

    def missed(self, decisions: int, since: float) -> None:
        """Count decisions that are in no row; the next commit says how many, and since when.

        Args:
            decisions: how many.
            since: the first one's time, seconds since 1970.
        """
        if not self._unrecorded:
            self._unrecorded_since = since
        self._unrecorded += decisions

    def event(self, kind: str, details: Mapping[str, Any]) -> None:
        """Take an event into the chain: a changed threshold, a gap of a camera.

        Args:
            kind: a name of one word.
            details: JSON values.
        """
        self._add(event_row(kind, self.session.id, time.time(), details))

    def record(self, kind: str, details: Mapping[str, Any]) -> int:
        """Put an event on the disk at once, after all that waits; return its id.

        Raises:
            OutputError: it is not recorded: the disk is full or gone, or another program keeps the
                log locked.
        """
        row = event_row(kind, self.session.id, time.time(), details)
        self._resume()
        number = self._last.id + len(self._pending) + 1
        self._add(row)
        try:
            self._commit()
        except OutputError:  # of the head as well, which is written after the rows
            if any(one is row for one in self._pending):
                self._pending = [one for one in self._pending if one is not row]
                raise
        return number

    def tick(self) -> float | None:
        """Commit what is due, and start a new file when the old one is full.

        Raises:
            OutputError: the disk is full or gone. What was pending is lost and counted.
        """
        self._resume()
        if not self._pending and not self._unrecorded:
            return None
        age = time.monotonic() - self._pending_since
        # A row for what was missed goes with the next group: with a commit of its own for each, a
        # slow disk would never get up again.
        due = len(self._pending) >= LARGEST_GROUP or not self._pending
        if age < self._options.commit_seconds and not due:
            return self._options.commit_seconds - age
        self._commit()
        if self._file_is_full():
            self._next_file(self._log_id)
            self._kept = self._last
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
            self._resume()
            self._add(event_row(SESSION_END, self.session.id, time.time(), self._ending()))
            self._commit_after_lock(LOCK_SECONDS if self._options.waits else 0.0)
            self._write_head(self._last)
        finally:
            self.lost += self.pending
            self._pending = []
            self._file.close()
            self._lock.release()

    def _ending(self) -> dict[str, Any]:
        return {"counts": dict(self.final_counts or self._counts)}

    def _add(self, row: LogRow) -> None:
        if not self._pending:
            self._pending_since = time.monotonic()
        self._pending.append(row)

    def _commit(self) -> None:
        """Put the pending rows on the disk, all or none."""
        pending = self._pending
        rows = list(pending)
        if self._unrecorded:
            missed = {"decisions": self._unrecorded, "since": round(self._unrecorded_since, 6)}
            rows.append(event_row(NOT_RECORDED, self.session.id, time.time(), missed))
        try:
            self._check_place()
            check_room(self.path.parent, self._options.reserve_bytes)
            self._append(rows)
        except (LogLocked, LogMoved) as error:  # nothing is lost: the rows go on waiting
            self._moved = isinstance(error, LogMoved)
            self._cause = error.cause
            raise
        except OutputError as error:
            self._cause = error.cause
            self._pending = [row for row in pending if row.verdict is None]  # events are few
            lost = len(pending) - len(self._pending)
            self.lost += lost
            self.missed(lost, time.time())
            self._refuses = True
            raise
        self._pending = []
        self._unrecorded = 0
        if time.monotonic() >= self._head_due:
            self._write_head(self._last)
            self._head_due = time.monotonic() + self._options.head_seconds

    def _commit_after_lock(self, seconds: float) -> None:
        """Commit, and wait for a lock or for the place of a log that was moved.

        Raises:
            OutputError: it was not to be had for so long, or the disk is full or gone.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                self._resume()
                return self._commit()
            except LogMoved:
                continue
            except LogLocked:
                if time.monotonic() >= end:
                    raise

    def _append(self, new: Sequence[LogRow]) -> None:
        rows: list[LogRow] = []
        for row in new:
            rows.append(chained(row, rows[-1] if rows else self._last))
        self._file.append(rows)
        self._last = self._kept = rows[-1]
        for row in rows:
            if row.verdict in self._counts:
                self._counts[row.verdict] += 1
        if self.on_commit is not None:
            self.on_commit(rows)

    def _resume(self) -> None:
        """Open the log again where that is needed: it may be another one now."""
        if not self._refuses and not self._moved:
            return
        check_room(self.path.parent, self._options.reserve_bytes)
        log_id = self._log_id
        self._file.close()
        if self._moved:  # and so was the lock
            self._lock.release()
            self._take_lock()
        self._open()
        if self.on_commit is not None and self._log_id != log_id:
            self.on_commit([self._file.first()])
        kept = self._kept
        if self._last.hash != kept.hash:
            self._begin_session(LogHead(id=kept.id, hash=kept.hash, time=kept.time))
        self._refuses = self._moved = False

    def _open(self) -> None:
        """Open the newest file; in a new log, make the first."""
        files = chain_files(self.path)
        self._is_new = not files
        if self._is_new:
            check_writable(self._head_path)
            self._log_id = uuid.uuid4().hex
            first = file_row(self._log_id)
            if not self._tells_of_a_log():
                # Before the row, so that no kill leaves a log without a head: one has lost it.
                self._write_head(first)
            make_log_file(self.path, first)
            files = [self.path]
        self._use(LogFile(files[-1]))
        for path in files[:-1]:  # a kill may have left rows beside them
            settle(path)

    def _tells_of_a_log(self) -> bool:
        """Tell whether a head is there that is of rows; of row 1 alone, a kill left it so."""
        try:
            head = newest_head(self.path, self._head_path)
        except InputError:
            return True
        return head is not None and head.id > 1

    def _use(self, file: LogFile) -> None:
        self._file = file
        first, self._last = file.first(), file.last()
        self._opened_at = first.time
        log_id = log_id_of(first)
        if log_id is None or self._last.id > LAST_ID:
            which = "first" if log_id is None else "last"
            raise InputError(
                f"{file.path} is damaged: its {which} row holds what no inspector writes.",
                next_step=f"hvq-edge log verify {file.path}",
            )
        self._log_id = log_id

    def _begin_session(self, head: LogHead | None) -> None:
        """Begin this run's rows.

        Args:
            head: the newest row that was known of the log; ``None``: there is no head to be read.
        """
        check_writable(self._head_path)  # before a row says anything
        doubt = doubt_of(self.path, self._last, head)
        kept = keep_aside(self._head_path) if doubt and self._head_path.exists() else None
        rows = []
        former = self._file.last_of((FILE, SESSION_START, SESSION_END, SESSION_LOST))
        is_open = former.kind in (SESSION_START, FILE) and former.session
        if is_open and former.session != self.session.id:
            last = self._file.last_of_session(former.session)  # reviews may stand behind it
            details = {"last_id": last.id, "last_time": last.time}
            rows.append(event_row(SESSION_LOST, former.session, time.time(), details))
        if doubt:
            if not self._is_new:  # receivers may know rows of these ids: from here it is another
                self._next_file(uuid.uuid4().hex)
            said = {
                "what": doubt,
                "head": None if head is None else head.model_dump(),
                "kept": None if kept is None else kept.name,
            }
            rows.append(event_row(HEAD_MISMATCH, self.session.id, time.time(), said))
        rows.append(event_row(SESSION_START, self.session.id, time.time(), self.session.details))
        self._append(rows)
        if kept is not None:
            try:
                self._head_path.replace(kept)
            except OSError as error:
                raise output_error(kept, error) from error
        self._write_head(self._last)
        lead_to_head(self.path, self._head_path)

    def _write_head(self, row: LogRow) -> None:
        write_head(self._head_path, row, self._log_id, self.path)

    def _take_lock(self) -> None:
        self._lock = lock_log(self.path)
        self._lock_identity = identity_of(Path(self._lock.lock_file))

    def _check_place(self) -> None:
        """Check that file and lock are still those at their paths.

        Raises:
            LogMoved: what is written would be lost, or stand between another inspector's rows.
        """
        self._file.check_place()
        if identity_of(Path(self._lock.lock_file)) != self._lock_identity:
            raise LogMoved(
                f"the lock of {self.path} was removed while it was recorded.",
                next_step="leave the files beside the log alone while an inspector runs",
            )

    def _file_is_full(self) -> bool:
        options = self._options
        if options.file_bytes is not None and self._file.bytes >= options.file_bytes:
            return True
        age = time.time() - self._opened_at
        return options.file_seconds is not None and age >= options.file_seconds

    def _next_file(self, log_id: str) -> None:
        path = following(self._file.path)
        make_log_file(path, file_row(log_id, self._last, self.session.id))
        self._file.close()
        self._use(LogFile(path))
        if self.on_commit is not None:
            self.on_commit([self._last])
        if self.on_new_file is not None:
            self.on_new_file()
