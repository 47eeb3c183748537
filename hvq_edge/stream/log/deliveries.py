"""How far each receiver has got in the decision log, kept in the log's newest file."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hvq_edge.stream.log.chain import chain_files, transaction, translated

_BUSY_SECONDS = 5.0


@dataclass(frozen=True)
class Progress:
    """Of one receiver."""

    cursor: int
    """Id of the last row it needs nothing of any more."""
    delivered: int = 0
    """Decisions it has taken, since it was first named."""
    dropped: int = 0
    """Decisions it refused for good."""


class Deliveries:
    """Reads and writes the table ``deliveries``; thread-safe.

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
            path = chain_files(self._log)[-1]
            with translated(path), closing(self._opened(path)) as connection:
                # A power cut may take it back, which only delivers again; no need to wait for it.
                connection.execute("PRAGMA synchronous = NORMAL")
                with transaction(connection):
                    connection.execute(
                        "INSERT OR REPLACE INTO deliveries VALUES (?, ?, ?, ?)",
                        (name, progress.cursor, progress.delivered, progress.dropped),
                    )

    def lowest_cursor(self) -> int | None:
        """Return up to which row every receiver has got; ``None`` where there is none."""
        names: set[str] = set()
        for path in chain_files(self._log):
            with translated(path), closing(self._opened(path)) as connection:
                names |= {name for (name,) in connection.execute("SELECT name FROM deliveries")}
        every = [self.read(name) for name in names]
        return min((progress.cursor for progress in every if progress), default=None)

    def _found(self, path: Path, name: str) -> Progress | None:
        query = "SELECT cursor, delivered, dropped FROM deliveries WHERE name = ?"
        with translated(path), closing(self._opened(path)) as connection:
            found = connection.execute(query, (name,)).fetchone()
        return Progress(*found) if found else None

    def _opened(self, path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
