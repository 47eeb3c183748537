"""The files of a decision log: how they are named, and the head that is written beside them.

Without a head, a cut-off end leaves no trace.
"""

from __future__ import annotations

import json
import re
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from hvq_edge.common.atomic import output_error, write_text
from hvq_edge.common.records import StrictTypes
from hvq_edge.errors import InputError, OutputError
from hvq_edge.stream.log.chain import LogRow


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


class LogHead(StrictTypes):
    """A row that was the last one at some moment."""

    format: int = 1
    id: int = Field(ge=1)
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    time: float
    """Time of that row in seconds since 1970, UTC."""


def head_path(log: Path) -> Path:
    """Return where the head of a log stands by default, given any of its files."""
    base = base_of(log)
    return base.with_name(base.name + ".head")


def write_head(path: Path, row: LogRow) -> None:
    """Write the head, on the disk when this returns.

    Raises:
        OutputError: it cannot be written; the former head stays.
    """
    head = LogHead(id=row.id, hash=row.hash, time=row.time)
    write_text(path, json.dumps(head.model_dump()) + "\n")


def lock_log(log: Path) -> FileLock:
    """Take a log for this process alone; its folder is made.

    Args:
        log: the first file.

    Raises:
        OutputError: another inspector has it, or the lock cannot be written.
    """
    # Taken by the thread that opens the log, released by the one that closes it.
    lock = FileLock(log.with_name(f".{log.name}.lock"), thread_local=False)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            f"another inspector is recording to {log}.",
            next_step="stop it, or choose another --out",
        ) from error
    except OSError as error:
        raise output_error(log, error) from error
    return lock


def keep_aside(path: Path) -> Path:
    """Return the name under which a head that does not fit is kept: the first that is free."""
    numbered = (path.with_name(f"{path.name}.{number}") for number in count(1))
    return next(other for other in numbered if not other.exists())


def read_head(path: Path) -> LogHead | None:
    """Read a head; ``None`` where there is none.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return LogHead.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise InputError(
            f"cannot read the head of the log, {path}: it is damaged.",
            next_step="name another copy of it with --head",
        ) from error


def newest_head(log: Path, aside: Path) -> LogHead | None:
    """Return the head of a log from the place where it is kept.

    Where another place was chosen since the last run, the head is still beside the log.

    Raises:
        InputError: it cannot be read.
    """
    return read_head(aside) or read_head(head_path(log))
