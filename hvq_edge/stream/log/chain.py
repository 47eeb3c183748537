"""One SQLite file of the decision log, open for appending."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hvq_edge.common.atomic import atomic_file
from hvq_edge.errors import InputError, OutputError
from hvq_edge.stream.log.hash_chain import LogRow

APPLICATION_ID = 0x48565121
"""``HVQ!``: tells our files from other databases."""
FORMAT = 1

_BUSY_SECONDS = 5.0
_COLUMNS = ", ".join(LogRow._fields)
_MARKS = ", ".join("?" * len(LogRow._fields))
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
            connection.execute(f"INSERT INTO log ({_COLUMNS}) VALUES ({_MARKS})", first)
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
            self._connection.executemany(f"INSERT INTO log ({_COLUMNS}) VALUES ({_MARKS})", rows)

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
            found = self._connection.execute(
                f"SELECT {_COLUMNS} FROM log {rest}", values
            ).fetchone()
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


def chain_files(log: Path) -> list[Path]:
    """Return the files of a log that are there, the oldest first.

    A log ``decisions.sqlite`` goes on in ``decisions.000002.sqlite`` and so on.

    Args:
        log: the first file, any later one, or the folder that holds ``decisions.sqlite``.
    """
    base = base_of(log)
    pattern = re.compile(re.escape(base.stem) + r"\.(\d{6})" + re.escape(base.suffix))
    later = []
    if base.parent.is_dir():
        later = [path for path in base.parent.iterdir() if pattern.fullmatch(path.name)]
    return [*([base] if base.exists() else []), *sorted(later, key=number_of)]


def base_of(log: Path) -> Path:
    """Return the first file of a log, given any of its files or its folder; it may be gone."""
    if log.is_dir():
        return log / "decisions.sqlite"
    match = re.fullmatch(r"(.+)\.\d{6}", log.stem)
    return log.with_name(match[1] + log.suffix) if match else log


def number_of(path: Path) -> int:
    """Return which file of its log a file is, from 1."""
    match = re.fullmatch(r".+\.(\d{6})", path.stem)
    return int(match[1]) if match else 1


def following(path: Path) -> Path:
    """Return the name of the file after this one."""
    base = base_of(path)
    return base.with_name(f"{base.stem}.{number_of(path) + 1:06}{base.suffix}")
