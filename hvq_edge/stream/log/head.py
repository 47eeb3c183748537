"""The head of a decision log, its last row written aside: without one no cut-off end is seen."""

from __future__ import annotations

import json
import re
import stat
from contextlib import suppress
from itertools import count
from pathlib import Path

from pydantic import Field, ValidationError

from hvq_edge.common.atomic import write_text
from hvq_edge.common.plain_file import read_plain
from hvq_edge.common.records import StrictTypes
from hvq_edge.errors import InputError
from hvq_edge.stream.log.chain import LogRow
from hvq_edge.stream.log.files import base_of
from hvq_edge.stream.log.reader import log_ids
from hvq_edge.verdict.decision import as_text


class LogHead(StrictTypes):
    """A row that was the last one at some moment."""

    format: int = 1
    id: int = Field(ge=1)
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    time: float
    """Time of that row in seconds since 1970, UTC."""
    log: str | None = None
    """Id of the log; ``None``: an earlier version wrote the head."""
    file: str | None = None
    """Where the log's first file stood."""


def head_path(log: Path) -> Path:
    """Return where the head of a log stands by default, given any of its files."""
    base = base_of(log)
    return base.with_name(base.name + ".head")


def write_head(path: Path, row: LogRow, log_id: str | None = None, log: Path | None = None) -> None:
    """Write the head, on the disk when this returns.

    Args:
        path: where to.
        row: the last one.
        log_id: id of the log.
        log: its first file.

    Raises:
        OutputError: it cannot be written; the former head stays.
    """
    file = None if log is None else _name_of(log)
    head = LogHead(id=row.id, hash=row.hash, time=row.time, log=log_id, file=file)
    write_text(path, json.dumps(head.model_dump(exclude_none=True)) + "\n")


def lead_to_head(log: Path, head: Path) -> None:
    """Let the place beside a log lead to a head that is kept elsewhere.

    A head that stayed there from before would vouch for a log whose end was cut off since.
    """
    beside = head_path(log)
    if head.absolute() == beside.absolute():
        return
    with suppress(OSError):
        if beside.readlink() == head.absolute():
            return
    with suppress(OSError):
        beside.unlink(missing_ok=True)
        beside.symlink_to(head.absolute())  # not every file system has links


def check_head_place(log: Path, head: Path) -> None:
    """Check that what stands where a log's head goes is its own, for it will be replaced.

    Args:
        log: the log's first file.
        head: where the head goes.

    Raises:
        InputError: it is the head of another log, another file, or no file.
    """
    next_step = "give another place: head in [sinks.log] names a file that nothing else writes"
    try:
        mode = head.stat().st_mode
    except ValueError as error:
        raise InputError(f"{head} is no path of a file.", next_step=next_step) from error
    except OSError:
        mode = None  # nothing there, or nothing that can be told: writing it will say why
    if mode is not None and not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise InputError(
            f"the head of the log cannot be written to {head}: that is {what}.",
            next_step=next_step,
        )
    if head.absolute() == head_path(log).absolute():
        return
    first = base_of(log)
    stem, suffix = re.escape(first.stem), re.escape(first.suffix)
    own = rf"\.?{stem}(\.\d{{6}})?({suffix}(-wal|-shm|-journal|\.lock)?|\.jsonl)|rejects|videos"
    if re.fullmatch(own, head.name) and head.parent.resolve() == first.parent.resolve():
        raise InputError(
            f"the head of the log cannot be written to {head}: another file or folder of the "
            "recording has that name.",
            next_step=next_step,
        )
    if mode is not None:
        _check_own(log, head, next_step)


def _check_own(log: Path, place: Path, next_step: str) -> None:
    """Check that a file elsewhere is this log's head; a damaged one is, and the log tells of it."""
    try:
        head = read_head(place)
    except InputError:
        try:
            text = read_plain(place).strip(b"\0 \r\n")
        except OSError:
            return
        begin = b'{"format": '  # or less of it, where a broken disk has emptied it or cut it off
        if text[: len(begin)] == begin[: len(text)]:
            return
        raise InputError(
            f"the head of the log cannot be written to {place}: a file of something else stands "
            "there.",
            next_step=next_step,
        ) from None
    if head is None or head.log is None or head.file is None:
        return
    # Of a log that was moved, the id is the same; of one that is gone, the place.
    if head.file != _name_of(log) and head.log not in log_ids(log):
        raise InputError(
            f"the head of the log cannot be written to {place}: that is the head of another log, "
            f"{head.file}.",
            next_step=next_step,
        )


def _name_of(log: Path) -> str:
    return as_text(str(base_of(log).absolute()))


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
        return LogHead.model_validate_json(read_plain(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(
            f"cannot read the head of the log, {path}: {why}.",
            next_step="name another copy of it with --head",
        ) from error
    except ValidationError as error:
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
