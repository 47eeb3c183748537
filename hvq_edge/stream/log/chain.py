"""The rows of the decision log, each with the hash of the row before, and a file of them.

A row that is changed, removed, inserted or swapped breaks the chain there. Only someone who
rewrites every later row, and the head written aside, goes unseen: keep that head where the log's
owner cannot write.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from hvq_edge.common.atomic import atomic_file
from hvq_edge.errors import InputError, OutputError
from hvq_edge.verdict.decision import Decision

GENESIS = "0" * 64
"""What stands for the hash before the first row of the first file."""

DECISION = "decision"
FILE = "file"
"""The first row of each file: where its chain comes from."""
SESSION_START = "session_start"
SESSION_END = "session_end"
SESSION_LOST = "session_lost"
"""An inspector found that the one before it did not end its session: killed, or power was cut."""
NOT_RECORDED = "not_recorded"
"""How many decisions a full or broken disk cost, written when there is room again."""

APPLICATION_ID = 0x48565121
"""``HVQ!``: tells our files from other databases."""
FORMAT = 1


class LogRow(NamedTuple):
    """One row as it stands in the table ``log``; before it is :func:`chained` its id is 0."""

    id: int
    kind: str
    session: str
    time: float
    """Seconds since 1970, UTC."""
    camera: str | None = None
    frame: int | None = None
    category: str | None = None
    score: float | None = None
    verdict: str | None = None
    reason: str | None = None
    latency_ms: float | None = None
    regions: str | None = None
    """JSON array."""
    more: str = "{}"
    """JSON object: of a decision its other fields, of an event what it has to say."""
    previous: str = ""
    hash: str = ""


SELECT = f"SELECT {', '.join(LogRow._fields)} FROM log"
"""Whole rows: to be followed by a condition, an order or nothing."""
_INSERT = (
    f"INSERT INTO log ({', '.join(LogRow._fields)}) VALUES ({', '.join('?' * len(LogRow._fields))})"
)
_BUSY_SECONDS = 5.0
_TABLES = """
CREATE TABLE log (
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  session TEXT NOT NULL,
  time REAL NOT NULL,
  camera TEXT,
  frame INTEGER,
  category TEXT,
  score REAL,
  verdict TEXT,
  reason TEXT,
  latency_ms REAL,
  regions TEXT,
  more TEXT NOT NULL,
  previous TEXT NOT NULL,
  hash TEXT NOT NULL
) STRICT;
CREATE TABLE deliveries (
  name TEXT PRIMARY KEY,
  cursor INTEGER NOT NULL,
  delivered INTEGER NOT NULL,
  dropped INTEGER NOT NULL
) STRICT;
"""


def decision_row(decision: Decision, session: str) -> LogRow:
    """Return what the log says of a decision, before it has a place in the chain.

    Fields without a column of their own go into ``more``.

    Raises:
        ValueError: a number is not finite.
    """
    fields = decision.fields()
    regions = fields.pop("regions", None)
    return LogRow(
        id=0,
        kind=DECISION,
        session=session,
        time=float(fields.pop("time")),
        camera=_text(fields.pop("camera")),
        frame=fields.pop("frame"),
        category=_text(fields.pop("category")),
        score=_number(fields.pop("score")),
        verdict=_text(fields.pop("verdict")),
        reason=_text(fields.pop("reason")),
        latency_ms=_number(fields.pop("latency_ms")),
        regions=None if regions is None else as_json(regions),
        more=as_json(fields),  # what is left: arguments are evaluated in order
    )


def event_row(kind: str, session: str, time: float, details: Mapping[str, Any]) -> LogRow:
    """Return what the log says of an event, before it has a place in the chain."""
    return LogRow(id=0, kind=kind, session=session, time=float(time), more=as_json(details))


def chained(row: LogRow, before: LogRow | None) -> LogRow:
    """Give a row its place behind another one; ``None``: at the beginning of a log."""
    number, previous = (before.id + 1, before.hash) if before else (1, GENESIS)
    row = row._replace(id=number, previous=previous)
    return row._replace(hash=hash_of(row))


def hash_of(row: LogRow) -> str:
    """Return SHA-256 over a canonical encoding of all columns but the hash itself.

    The encoding is the JSON array of the columns in the order of the table, without spaces, in
    UTF-8; numbers as Python writes them (the shortest form that reads back the same).
    """
    columns = list(row[:-1])
    text = json.dumps(columns, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def fields_of(row: LogRow) -> dict[str, Any]:
    """Return a row as one flat object, without the chain's own columns and empty ones."""
    own = ("id", "regions", "more", "previous", "hash")
    fields = {
        name: value
        for name, value in row._asdict().items()
        if name not in own and value is not None
    }
    if row.regions is not None:
        fields["regions"] = json.loads(row.regions)
    return {**fields, **json.loads(row.more)}


def as_json(value: object) -> str:
    """Return JSON of one form: sorted keys, no spaces, text that SQLite can hold."""
    text = json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _text(value: str | None) -> str | None:
    """File names may hold bytes that are no text; SQLite takes none of these."""
    return None if value is None else value.encode("utf-8", "backslashreplace").decode("utf-8")


def _number(value: float | None) -> float | None:
    if value is None:
        return None
    if not math.isfinite(value):
        raise ValueError(f"a decision with {value} cannot be logged")
    # SQLite keeps whole numbers in a REAL column as integers: -0.0 would come back as 0.0.
    return float(value) + 0.0


def make_log_file(path: Path, first: LogRow) -> None:
    """Make a file that holds its first row, or none: a kill in between leaves nothing of it.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_file(path) as temporary, translated(path):
        connection = sqlite3.connect(temporary, isolation_level=None)
        try:
            connection.executescript(_TABLES)
            connection.execute(_INSERT, first)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        finally:
            connection.close()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name itself must outlast a power cut, as the rows will
    finally:
        os.close(folder)


class LogFile:
    """Appends rows in whole transactions; used by one thread at a time.

    Args:
        path: a file that :func:`make_log_file` made.

    Raises:
        InputError: the file is something else, or of another format.
        OutputError: it cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with translated(path):
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def first(self) -> LogRow:
        """Return the first row."""
        return self._one("ORDER BY id LIMIT 1")

    def last(self) -> LogRow:
        """Return the last row."""
        return self._one("ORDER BY id DESC LIMIT 1")

    def last_of(self, kinds: Sequence[str]) -> LogRow:
        """Return the last row of some kinds, one of which the file must have."""
        marks = ", ".join("?" * len(kinds))
        return self._one(f"WHERE kind IN ({marks}) ORDER BY id DESC LIMIT 1", kinds)

    def append(self, rows: Sequence[LogRow]) -> None:
        """Add rows, all or none; they outlast a power cut when this returns.

        Raises:
            OutputError: the disk is full or gone; nothing was added.
        """
        with translated(self.path), transaction(self._connection):
            self._connection.executemany(_INSERT, rows)

    @property
    def bytes(self) -> int:
        """Size of the database, what still stands in its write-ahead file included."""
        with translated(self.path):
            (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
            (page_bytes,) = self._connection.execute("PRAGMA page_size").fetchone()
        return int(pages) * int(page_bytes)

    def close(self) -> None:
        """Bring the write-ahead file into the database and close it; calling it twice is fine."""
        self._connection.close()  # the last connection to close does the checkpoint

    def _prepare(self) -> None:
        execute = self._connection.execute
        application = version = None
        with suppress(sqlite3.DatabaseError):  # of a file that is no database at all
            (application,) = execute("PRAGMA application_id").fetchone()
            (version,) = execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            raise InputError(
                f"{self.path} is a file of another program, or damaged.",
                next_step="move it away, or choose another --out",
            )
        if version != FORMAT:
            raise InputError(
                f"{self.path} is a decision log of format {version}; this version writes {FORMAT}.",
                next_step="move it away, or use the version of hvq-edge that wrote it",
            )
        with translated(self.path):
            execute("PRAGMA journal_mode = WAL")
            execute("PRAGMA synchronous = FULL")  # what was committed outlasts a power cut

    def _one(self, rest: str, values: Sequence[str] = ()) -> LogRow:
        with translated(self.path):
            found = self._connection.execute(f"{SELECT} {rest}", values).fetchone()
        if found is None:
            raise InputError(
                f"{self.path} has lost rows.", next_step=f"hvq-edge log verify {self.path}"
            )
        return LogRow(*found)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All statements of the block take effect, or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours.

    Raises:
        OutputError: with what SQLite said.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise OutputError(
            f"cannot write {path}: {error}.",
            next_step="check that the disk has room and can be written to",
        ) from error
