"""Rows of a decision log, read while an inspector may be writing to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

from hvq_edge.errors import InputError
from hvq_edge.stream.log.chain import DECISION, SELECT, LogRow, as_json, log_id_of
from hvq_edge.stream.log.files import chain_files
from hvq_edge.stream.log.sqlite_file import APPLICATION_ID

BETWEEN = f"WHERE (kind <> '{DECISION}' OR (time >= ? AND time < ?))"
"""The condition for all events, and decisions of some time; its values are the two moments."""
MOST_COUNTED = 200_000


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Open one file of a log; closing it leaves the folder as it was.

    Raises:
        InputError: it is not there or no decision log.
    """
    if not path.is_file():
        raise InputError(
            f"there is no decision log {'in ' if path.is_dir() else ''}{path}.",
            next_step="name the decisions.sqlite that hvq-edge stream --out wrote, or its folder",
        )
    address = path.absolute().as_uri()
    wal = path.with_name(path.name + "-wal")
    # Even a reader needs the two files beside a database with write-ahead. A connection that may
    # write takes them away again when it is the last to close, a read-only one leaves them. What a
    # killed inspector left in such a file is evidence, so there nothing is brought into the log.
    # "immutable" would make no files, but a writer that starts meanwhile would be read wrongly: it
    # is for disks that cannot be written to.
    modes = ["mode=ro"] if wal.exists() else ["mode=rw", "mode=ro", "mode=ro&immutable=1"]
    for mode in modes:
        try:
            connection = sqlite3.connect(
                f"{address}?{mode}", uri=True, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA query_only = ON")
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            if application == APPLICATION_ID:
                connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
                return connection
            connection.close()
            break
        except sqlite3.OperationalError:
            continue
        except (sqlite3.DatabaseError, UnicodeDecodeError):  # its message may quote damaged text
            break
    raise InputError(
        f"{path} is no decision log of hvq-edge, or its beginning is damaged.",
        next_step="name the decisions.sqlite that hvq-edge stream --out wrote",
    )


@contextmanager
def damage_said(log: Path) -> Iterator[None]:
    """Say that a log is damaged where a row turns out to hold what no inspector writes.

    Raises:
        InputError: it does.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{log} is damaged: a row holds what no inspector writes ({error}).",
            next_step=f"hvq-edge log verify {log}",
        ) from error


def all_rows(
    log: Path, part: str | None = None, between: tuple[float, float] | None = None
) -> Iterator[LogRow]:
    """Give every row of a log, over all its files, the oldest first.

    Args:
        log: any of its files, or its folder.
        part: only decisions on the part with this serial number; ``None``: all rows.
        between: of decisions only those from the first moment on and before the second, seconds
            since 1970.

    Raises:
        InputError: there is none, or a file is damaged.
    """
    where, values = (BETWEEN, between) if between else _condition(part=part)
    for path in _files_of(log):
        with closing(open_for_reading(path)) as connection:
            try:
                for found in connection.execute(f"{SELECT} {where} ORDER BY id", values):
                    yield LogRow(*found)
            except sqlite3.DatabaseError as error:
                raise InputError(
                    f"{path} is damaged: {error}.", next_step=f"hvq-edge log verify {path}"
                ) from error


def decision_span(log: Path) -> tuple[float, float] | None:
    """Return the times of the earliest and the latest decision; ``None``: there is none.

    Raises:
        InputError: there is no log, or a file is damaged.
    """
    spans = []
    for path in _files_of(log):
        with closing(open_for_reading(path)) as connection:
            try:
                query = "SELECT MIN(time), MAX(time) FROM log WHERE kind = ?"
                spans.append(connection.execute(query, (DECISION,)).fetchone())
            except sqlite3.DatabaseError as error:
                raise InputError(
                    f"{path} is damaged: {error}.", next_step=f"hvq-edge log verify {path}"
                ) from error
    found = [span for span in spans if span[0] is not None]
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None


def decision_times(log: Path) -> Iterator[float]:
    """Give the times of all decisions in the order of their rows, whatever the clock said.

    Raises:
        InputError: a file is damaged.
    """
    query = "SELECT time FROM log WHERE kind = ? ORDER BY id"
    for path in chain_files(log):
        with closing(open_for_reading(path)) as connection:
            try:
                yield from (at for (at,) in connection.execute(query, (DECISION,)))
            except sqlite3.DatabaseError as error:
                raise InputError(
                    f"{path} is damaged: {error}.", next_step=f"hvq-edge log verify {path}"
                ) from error


def decisions_so_far(log: Path) -> tuple[int, float] | None:
    """Return how many decisions a log has, and when the first was made; ``None``: it has none.

    It counts no further than :data:`MOST_COUNTED`, which takes a moment.

    Raises:
        InputError: a file is damaged.
    """
    times = decision_times(log)
    first = next(times, None)
    return None if first is None else (1 + sum(1 for _ in islice(times, MOST_COUNTED - 1)), first)


def last_rows(
    log: Path,
    count: int | None,
    verdicts: Sequence[str] | None = None,
    part: str | None = None,
) -> list[LogRow]:
    """Return the last rows of a log, the oldest first.

    Args:
        log: any of its files, or its folder.
        count: the most that are returned; ``None``: all.
        verdicts: only decisions with one of these; ``None``: all rows, events included.
        part: only decisions on the part with this serial number.

    Raises:
        InputError: there is none, or a file is damaged.
    """
    where, values = _condition(verdicts, part)
    query = f"{SELECT} {where} ORDER BY id DESC LIMIT ?"
    rows: list[LogRow] = []
    for path in reversed(_files_of(log)):
        with closing(open_for_reading(path)) as connection:
            try:
                found = connection.execute(
                    query, (*values, -1 if count is None else count - len(rows))
                )
                rows += [LogRow(*columns) for columns in found]
            except sqlite3.DatabaseError as error:
                raise InputError(
                    f"{path} is damaged: {error}.", next_step=f"hvq-edge log verify {path}"
                ) from error
        if count is not None and len(rows) >= count:
            break
    return rows[::-1]


def row_with(log: Path, number: int) -> LogRow | None:
    """Return one row of a log; ``None`` where it has none of that id.

    Raises:
        InputError: a file is damaged.
    """
    for path in reversed(chain_files(log)):
        row = _one_of(path, "WHERE id = ?", (number,))
        if row is not None:
            return row
    return None


def last_event(log: Path, kind: str) -> LogRow | None:
    """Return the last row of a kind; ``None`` where the log has none.

    Raises:
        InputError: a file is damaged.
    """
    for path in reversed(chain_files(log)):
        row = _one_of(path, "WHERE kind = ? ORDER BY id DESC LIMIT 1", (kind,))
        if row is not None:
            return row
    return None


def first_row(log: Path) -> LogRow | None:
    """Return the oldest row that a log still has.

    Raises:
        InputError: a file is damaged.
    """
    return _one_of(_files_of(log)[0], "ORDER BY id LIMIT 1")


def log_ids(log: Path) -> set[str]:
    """Return the ids that a log has had; one that was found changed goes on with a new one.

    Raises:
        InputError: a file is damaged.
    """
    firsts = [_one_of(path, "ORDER BY id LIMIT 1") for path in chain_files(log)]
    return {log_id for row in firsts if row is not None and (log_id := log_id_of(row)) is not None}


def last_told(path: Path) -> int:
    """Return the last row up to which a receiver got, by one file of a log; 0: there is none.

    Raises:
        InputError: the file is damaged.
    """
    with closing(open_for_reading(path)) as connection:
        try:
            (cursor,) = connection.execute("SELECT MAX(cursor) FROM deliveries").fetchone()
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{path} is damaged: {error}.", next_step=f"hvq-edge log verify {path}"
            ) from error
    return int(cursor or 0)


def _one_of(path: Path, rest: str, values: Sequence[int | str] = ()) -> LogRow | None:
    with closing(open_for_reading(path)) as connection:
        try:
            found = connection.execute(f"{SELECT} {rest}", values).fetchone()
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{path} is damaged: {error}.", next_step=f"hvq-edge log verify {path}"
            ) from error
    return LogRow(*found) if found else None


class RowsAfter:
    """Reads decisions behind a cursor, over all files of a log; used by one thread.

    Args:
        log: the log's first file.
        verdicts: which decisions.
    """

    def __init__(self, log: Path, verdicts: Sequence[str]) -> None:
        self._log = log
        self._where, self._values = _condition(verdicts)
        self._finished: dict[Path, int] = {}  # last ids of files that are followed by another
        self._path: Path | None = None
        self._connection: sqlite3.Connection | None = None

    def read(self, cursor: int, count: int) -> tuple[list[LogRow], int]:
        """Return the next decisions, and the id up to which all are among them or before.

        Args:
            cursor: id of the last row that was dealt with.
            count: the most that are returned.

        Raises:
            InputError: the log is gone, or a file is damaged.
            sqlite3.Error: likewise.
            OSError: the folder cannot be read.
        """
        files = chain_files(self._log)
        if not files:
            raise InputError(f"the log {self._log} is not there any more.")
        for path in files:
            last = self._finished.get(path) or self._last_id(path)
            if path != files[-1]:
                self._finished[path] = last
            if last <= cursor:
                continue
            connection = self._opened(path)
            query = f"{SELECT} {self._where} AND id > ? ORDER BY id LIMIT ?"
            found = connection.execute(query, (*self._values, cursor, count)).fetchall()
            rows = [LogRow(*columns) for columns in found]
            if len(rows) == count:
                return rows, rows[-1].id
            if rows:
                return rows, max(last, rows[-1].id)
            cursor = max(last, cursor)
        return [], cursor

    def count(self, cursor: int) -> int:
        """Return how many decisions stand behind a cursor."""
        total = 0
        for path in chain_files(self._log):
            query = f"SELECT COUNT(*) FROM log {self._where} AND id > ?"  # noqa: S608  # ours, values bound
            (number,) = self._opened(path).execute(query, (*self._values, cursor)).fetchone()
            total += int(number)
        return total

    def last_id(self) -> int:
        """Return the id of the log's last row; 0 for a log without one."""
        files = chain_files(self._log)
        return self._last_id(files[-1]) if files else 0

    def close(self) -> None:
        """Close the file in hand, and forget the others: another log may stand there next time."""
        self._finished.clear()
        self._leave()

    def _last_id(self, path: Path) -> int:
        (last,) = self._opened(path).execute("SELECT MAX(id) FROM log").fetchone()
        return int(last or 0)

    def _opened(self, path: Path) -> sqlite3.Connection:
        if self._connection is None or self._path != path:
            self._leave()
            self._connection, self._path = open_for_reading(path), path
            # Bytes that are no text, in a row that was changed, must not hide the rows behind it.
            self._connection.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
        return self._connection

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = self._path = None


def _files_of(log: Path) -> list[Path]:
    files = chain_files(log)
    return files or [log]  # opening it says that it is not there


def _condition(
    verdicts: Sequence[str] | None = None, part: str | None = None
) -> tuple[str, tuple[str, ...]]:
    """Return the condition for decisions that are wanted, and its values; empty: all rows are."""
    conditions: list[str] = []
    values: list[str] = []
    if verdicts is not None:
        conditions.append(f"verdict IN ({', '.join('?' * len(verdicts))})")
        values += verdicts
    if part is not None:
        # JSON has one form here, in which no text can hold this: its quotes would be escaped.
        conditions.append("instr(more, ?)")
        values.append(f'"part":{as_json(part)}')
    if not conditions:
        return "", ()
    return f"WHERE kind = '{DECISION}' AND {' AND '.join(conditions)}", tuple(values)
