"""How far each receiver has got in the decision log, and which old files may therefore go."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hvq_edge.errors import OutputError
from hvq_edge.stream.log.chain import LogRow
from hvq_edge.stream.log.files import chain_files
from hvq_edge.stream.log.sqlite_file import LogFile, beside, connected, transaction, translated
from hvq_edge.stream.sinks.files.retention import RetentionLimits


@dataclass(frozen=True)
class Progress:
    """How far one receiver has got."""

    cursor: int
    """Id of the last row it needs nothing of any more."""
    delivered: int = 0
    """Decisions it has taken, since it was first named."""
    dropped: int = 0
    """Decisions it refused for good."""


class Deliveries:
    """Reads and writes the table ``deliveries`` in the log's newest file; thread-safe.

    Args:
        log: the log's first file.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._lock = threading.Lock()

    def read(self, name: str) -> Progress | None:
        """Return a receiver's progress; ``None`` before it was first written.

        A new file of the log begins with an empty table, so older files are looked at as well.
        """
        with self._lock:
            for path in reversed(chain_files(self._log)):
                found = self._found(path, name)
                if found is not None:
                    return found
        return None

    def write(self, name: str, progress: Progress) -> None:
        """Keep a receiver's progress.

        Raises:
            OutputError: the disk is full or gone. What was delivered meanwhile may then be
                delivered again after the next start.
        """
        with self._lock:
            files = chain_files(self._log)
            if not files:
                raise OutputError(f"the log {self._log} is not there any more.")
            path = files[-1]
            with translated(path), closing(connected(path)) as connection:
                # A power cut may take it back, which only delivers again; no need to wait for it.
                connection.execute("PRAGMA synchronous = NORMAL")
                with transaction(connection):
                    connection.execute(
                        "INSERT OR REPLACE INTO deliveries VALUES (?, ?, ?, ?)",
                        (name, progress.cursor, progress.delivered, progress.dropped),
                    )

    def lowest_cursor(self, names: Iterable[str]) -> int | None:
        """Return up to which row each of some receivers has got; ``None`` where none has begun."""
        every = [self.read(name) for name in names]
        return min((progress.cursor for progress in every if progress), default=None)

    def _found(self, path: Path, name: str) -> Progress | None:
        query = "SELECT cursor, delivered, dropped FROM deliveries WHERE name = ?"
        with translated(path), closing(connected(path)) as connection:
            found = connection.execute(query, (name,)).fetchone()
        return Progress(*found) if found else None


def remove_old_log_files(
    log: Path, limits: RetentionLimits, receivers: Iterable[str] = (), now: float | None = None
) -> list[Path]:
    """Remove whole files from the beginning of a log until it is within its limits.

    The newest file stays, and so does whatever a receiver still waits for. What is left begins with
    the hash of what was removed, so it can still be verified.

    Args:
        log: the log's first file.
        limits: what may stay.
        receivers: of this run; one that was taken out of the settings waits for nothing any more.
        now: seconds since 1970.

    Returns:
        The files removed.

    Raises:
        OSError: a file cannot be removed.
        OutputError: a file cannot be read.
    """
    if limits == RetentionLimits():
        return []
    now = time.time() if now is None else now
    files = chain_files(log)
    delivered = Deliveries(log).lowest_cursor(receivers)
    lasts = [_last_of(path) for path in files]
    sizes = [sum(one.stat().st_size for one in (path, *beside(path))) for path in files]
    total = sum(sizes)
    removed = []
    for path, last, since, size in zip(files[:-1], lasts, _since(lasts, now), sizes, strict=False):
        too_many = limits.bytes is not None and total > limits.bytes
        too_old = limits.seconds is not None and now - since > limits.seconds
        wanted = delivered is not None and delivered < last.id
        if wanted or not (too_many or too_old):
            break
        total -= size
        path.unlink()
        for other in beside(path):
            other.unlink(missing_ok=True)
        removed.append(path)
    return removed


def _since(lasts: Sequence[LogRow], now: float) -> list[float]:
    """Return since when each file is finished, at the latest.

    A time that is still to come is of a clock that was ahead: such a file is as old as the one
    after it, or it would keep every later one from being removed.
    """
    times = []
    known = now
    for last in reversed(lasts):
        known = last.time if last.time <= now else known
        times.append(known)
    return times[::-1]


def _last_of(path: Path) -> LogRow:
    file = LogFile(path)
    try:
        return file.last()
    finally:
        file.close()  # which brings what stood beside it into it
