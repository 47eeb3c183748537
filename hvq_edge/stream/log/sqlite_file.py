"""One SQLite file of the decision log: made whole, written in whole transactions."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hvq_edge.common.atomic import atomic_file
from hvq_edge.errors import InputError, OutputError
from hvq_edge.stream.log.chain import SELECT, LogRow

APPLICATION_ID = 0x48565121
"""``HVQ!``: tells our files from other databases."""
FORMAT = 1

_INSERT = (
    f"INSERT INTO log ({', '.join(LogRow._fields)}) "  # noqa: S608  # our columns
    f"VALUES ({', '.join('?' * len(LogRow._fields))})"
)
BUSY_SECONDS = 5.0
"""How long a lock of another program is waited for at once."""
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
            self._connection = connected(path)
        try:
            self._prepare()
            self._identity = identity_of(path)
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

    def last_of_session(self, session: str) -> LogRow:
        """Return the last row of a session, of which the file must have one."""
        return self._one("WHERE session = ? ORDER BY id DESC LIMIT 1", (session,))

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

    def check_place(self) -> None:
        """Check that the path still leads here: what goes into a file that was moved is lost.

        Raises:
            LogMoved: it was moved, removed or replaced.
        """
        if self._identity is None or identity_of(self.path) != self._identity:
            raise LogMoved(
                f"{self.path} was moved or removed while it was recorded.",
                next_step="look for it; a new log begins in its place",
            )

    def close(self) -> None:
        """Bring the write-ahead file into the database and close it; calling it twice is fine."""
        with suppress(sqlite3.Error):
            # The last connection to close does this; a receiver may still read from another one,
            # and a copy of the file alone must have every row. It is not waited for.
            self._connection.execute("PRAGMA busy_timeout = 100")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._connection.close()

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


def beside(path: Path) -> list[Path]:
    """Return the files that SQLite keeps beside a database, where they are."""
    return [
        other
        for other in (path.with_name(path.name + end) for end in ("-wal", "-shm"))
        if other.exists()
    ]


def settle(path: Path) -> None:
    """Bring what a kill or a reader left in a file's write-ahead file into the file.

    Raises:
        InputError: the file is something else.
        OutputError: it cannot be written.
    """
    if beside(path):
        LogFile(path).close()


def connected(path: Path) -> sqlite3.Connection:
    """Open a file that is there; unlike SQLite itself, make none."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


def identity_of(path: Path) -> tuple[int, int] | None:
    """Tell one file from another that takes its place; ``None``: there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


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


class LogMoved(OutputError):
    """A log's file or lock is no longer where it was, or another inspector writes to it."""


class LogLocked(OutputError):
    """Another program holds the log's lock: nothing was written, and nothing is lost yet."""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours.

    Raises:
        LogLocked: another program holds the lock.
        LogMoved: another one has written rows meanwhile.
        OutputError: with what SQLite said.
    """
    try:
        yield
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            raise LogLocked(
                f"cannot write {path}: another program keeps it locked.",
                next_step="close the program that has a transaction open on it",
            ) from error
        if isinstance(error, sqlite3.IntegrityError):
            raise LogMoved(
                f"cannot write {path}: another inspector is recording to it.",
                next_step="stop it, or choose another --out",
            ) from error
        raise OutputError(
            f"cannot write {path}: {error}.",
            next_step="check that the disk has room and can be written to",
        ) from error
