"""The files of a decision log: how they are named, and the lock that one inspector has."""

from __future__ import annotations

import re
from pathlib import Path

from filelock import FileLock, Timeout

from hvq_edge.common.atomic import output_error
from hvq_edge.errors import OutputError


class LogTaken(OutputError):
    """Another process records to the log: nothing was written."""


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


LOCK_SECONDS = 0.25
"""How long the lock is waited for: somebody who adds one row has it for a moment."""


def lock_log(log: Path) -> FileLock:
    """Take a log for this process alone; its folder is made.

    Args:
        log: the first file.

    Raises:
        LogTaken: another inspector has it.
        OutputError: the lock cannot be written.
    """
    # Taken by the thread that opens the log, released by the one that closes it.
    lock = FileLock(log.with_name(f".{log.name}.lock"), thread_local=False)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LOCK_SECONDS, poll_interval=0.02)
    except Timeout as error:
        raise LogTaken(
            f"another inspector is recording to {log}.",
            next_step="stop it, or choose another --out",
        ) from error
    except OSError as error:
        raise output_error(log, error) from error
    return lock
