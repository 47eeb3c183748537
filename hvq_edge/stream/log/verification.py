"""Proof that a decision log is as it was written: no row changed, missing, added or moved."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from hvq_edge.errors import InputError
from hvq_edge.stream.log.chain import (
    FILE,
    GENESIS,
    HEAD_MISMATCH,
    SELECT,
    SESSION_END,
    SESSION_LOST,
    SESSION_START,
    LogRow,
    hash_of,
)
from hvq_edge.stream.log.files import base_of, chain_files
from hvq_edge.stream.log.head import LogHead, head_path, read_head
from hvq_edge.stream.log.reader import first_row, last_told, open_for_reading, row_with

MOST_FAULTS = 20
"""Verification ends after this many faults."""

_FROM_BACKUP = "take the rows from a backup of the log, and find out who could write to it"
_OTHER_HEAD = (
    "name the head with --head where it is kept elsewhere, as head in [sinks.log] asks, or a copy "
    "of it; where there is none, compare the last row with the last that a webhook or broker got"
)


NOT_AS_WRITTEN = "says that an inspector found the log before row"
"""In the fault of a row in which a start tells of the log that it found."""


@dataclass(frozen=True)
class ChainFault:
    """One place where the chain does not hold."""

    file: str
    row: int | None
    """Id of the row; ``None`` where the whole file is meant."""
    what: str
    next_step: str = ""
    """What to do about it."""


@dataclass
class LogVerification:
    """What was found."""

    files: list[str] = field(default_factory=list)
    rows: int = 0
    first_id: int | None = None
    last_id: int | None = None
    last_hash: str = ""
    decisions: int = 0
    sessions: int = 0
    lost_sessions: int = 0
    """Ended by a kill or a power cut; each is on record."""
    head_id: int | None = None
    """Up to this row a cut-off end would have been seen; ``None``: there is no head."""
    faults: list[ChainFault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is no fault, but limits what is proven."""

    @property
    def whole(self) -> bool:
        """Whether no fault was found."""
        return not self.faults


def verify_log(log: Path, head: Path | None = None) -> LogVerification:
    """Check every row of a log, over all its files, against its hash and the row before it.

    Args:
        log: any file of the log, or its folder.
        head: the head written aside; ``None``: beside the log.

    Raises:
        InputError: there is no log, or the head cannot be read.
    """
    files = chain_files(log)
    place = head or head_path(log)
    damage = ""
    try:
        anchor = read_head(place)
    except InputError as error:
        if head is not None:
            raise
        anchor, damage = None, error.cause
    if anchor is None and head is not None:
        raise InputError(f"there is no head {head}.", next_step="check the path given with --head")
    if anchor is None or not files:  # nothing says that this was a log: is it one?
        _check_there(files[0] if files else base_of(log), anchor)
    found = LogVerification(files=[path.name for path in files])
    walk = _Walk(found, anchor)
    for path in files:
        walk.file(path)
        if len(found.faults) >= MOST_FAULTS:
            found.notes.append("verification ended early: there are too many faults")
            return found
    walk.end(files[-1] if files else base_of(log), place, damage)
    return found


def _check_there(path: Path, head: LogHead | None) -> None:
    """Check that there is a log; one that a head of many rows tells of may be gone.

    Raises:
        InputError: there is none, and was none.
    """
    if path.is_file() or head is None or head.id == 1:  # of row 1 alone: killed before it was there
        open_for_reading(path).close()


def doubt_of(log: Path, last: LogRow, head: LogHead | None) -> str:
    """Say why the log that stands here is not the one that was written; empty: it is.

    Args:
        log: the log's first file.
        last: its last row.
        head: a row that was its last one once; ``None``: that is not known.

    Raises:
        InputError: a file is damaged.
    """
    if head is None:  # one is written before the first row
        return "its head is gone or damaged"
    if head.id > last.id:
        gone = last.id == 1
        return f"{'the log' if gone else 'its end'} is gone: it once went on to row {head.id}"
    row = row_with(log, head.id)
    if row is None:  # gone with an older file, which may make room, or cut out
        first = first_row(log)
        if first is None or first.id <= head.id:
            return f"row {head.id} is gone"
    elif row.hash != head.hash:
        return f"row {head.id} is another one: it was written anew"
    told = last_told(chain_files(log)[-1])
    return f"its end is gone: a receiver got row {told}" if told > last.id else ""


class _Walk:
    """One pass over the rows."""

    def __init__(self, found: LogVerification, head: LogHead | None) -> None:
        self._found = found
        self._head = head
        self._head_seen = False
        self._before: LogRow | None = None
        self._open_session = ""
        self._file_begins = 0

    def file(self, path: Path) -> None:
        """Check one file."""
        try:
            told = last_told(path)  # first: rows come before what is told of them
            with closing(open_for_reading(path)) as connection:
                last = 0
                for row in _rows_of(connection):
                    self._row(path, row, first=not last)
                    last = row.id
                    if len(self._found.faults) >= MOST_FAULTS:
                        return
        except (InputError, sqlite3.DatabaseError, UnicodeDecodeError) as error:
            cause = error.cause if isinstance(error, InputError) else str(error)
            self._fault(path, None, f"the file is damaged: {cause}")
            return
        if not last:
            self._fault(path, None, "the file has lost all its rows")
        elif told > last:
            self._fault(
                path,
                last + 1,
                f"{_missing(last + 1, told)}: the end is cut off, for a receiver (webhook or "
                f"broker) got row {told}",
            )

    def end(self, path: Path, place: Path, damage: str) -> None:
        """Check what only the end can show.

        Args:
            path: the newest file.
            place: of the head.
            damage: what is wrong with the head; empty: nothing, or it is not there.
        """
        found, head = self._found, self._head
        last = found.last_id or 0
        if head is None:
            what = damage.rstrip(".") or f"there is no head {place}, which every log has"
            self._fault(
                path,
                None,
                f"{what}: whether rows behind row {last} were cut off is not known",
                _OTHER_HEAD,
            )
        else:
            found.head_id = head.id
            if not found.files:
                self._fault(path, None, f"the log is gone: by its head it went on to row {head.id}")
            elif not self._head_seen and last < head.id:
                self._fault(
                    path,
                    last + 1,
                    f"{_missing(last + 1, head.id)}: the end is cut off, for by the head the log "
                    f"once went on to row {head.id}",
                )
            elif not self._head_seen and (found.first_id or 0) <= head.id:
                self._fault(path, head.id, f"the head names row {head.id}, and it is not there")
        if self._open_session:
            found.notes.append(
                f"session {self._open_session} has no end: an inspector is at work, or it was "
                "killed, which the next start records"
            )
        if found.rows and found.first_id != 1:
            found.notes.append(
                f"rows before {found.first_id} are no longer there: older files were removed, as "
                "keep_megabytes or keep_days asks, or by hand"
            )

    def _row(self, path: Path, row: LogRow, *, first: bool) -> None:
        before = self._before
        if before is not None and row.id != before.id + 1:
            self._fault(path, before.id + 1, _missing(before.id + 1, row.id - 1))
        elif before is not None and row.previous != before.hash:
            self._fault(
                path,
                row.id,
                f"row {row.id} does not follow row {before.id}: one of them was put there later",
            )
        elif before is None and row.id == 1 and row.previous != GENESIS:
            self._fault(path, row.id, "row 1 claims to follow another row")
        if first:
            self._file_begins = row.id
        if first and row.kind != FILE:
            self._fault(path, row.id, f"rows before row {row.id} are missing: no file begins so")
        if row.hash != _recomputed(row):
            self._fault(path, row.id, f"row {row.id} was changed")
        if self._head is not None and row.id == self._head.id:
            self._head_seen = True
            if row.hash != self._head.hash:
                self._fault(
                    path,
                    row.id,
                    f"row {row.id} is not the one that the head names: the log was written anew, "
                    "from some row before it on, or the head is that of another log",
                    "name the log's own head with --head, or compare with a backup from the first "
                    "row on",
                )
        self._count(path, row)
        self._before = row

    def _count(self, path: Path, row: LogRow) -> None:
        found = self._found
        found.rows += 1
        found.first_id = row.id if found.first_id is None else found.first_id
        found.last_id, found.last_hash = row.id, row.hash
        found.decisions += row.verdict is not None
        found.sessions += row.kind == SESSION_START
        found.lost_sessions += row.kind == SESSION_LOST
        if row.kind == HEAD_MISMATCH:
            self._fault(
                path,
                row.id,
                f"row {row.id} {NOT_AS_WRITTEN} {self._file_begins} not as it was written: "
                f"{_what(row)}",
                "take what was lost from a backup; this stays on record, while the rows behind it "
                "are checked as any: to begin without it, move all files of the log to an archive",
            )
        if row.kind == SESSION_START:
            self._open_session = row.session
        elif row.kind in (SESSION_END, SESSION_LOST):
            self._open_session = ""

    def _fault(self, path: Path, row: int | None, what: str, next_step: str = _FROM_BACKUP) -> None:
        self._found.faults.append(ChainFault(path.name, row, what, next_step))


def _rows_of(connection: sqlite3.Connection) -> Iterator[LogRow]:
    for found in connection.execute(f"{SELECT} ORDER BY id"):
        yield LogRow(*found)


def _missing(first: int, last: int) -> str:
    return f"row {first} is missing" if first == last else f"rows {first} to {last} are missing"


def _what(row: LogRow) -> str:
    try:
        return str(json.loads(row.more)["what"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return "it is not the one that was written"


def _recomputed(row: LogRow) -> str:
    try:
        return hash_of(row)
    except (TypeError, ValueError):  # bytes where text was, an infinite number
        return ""
