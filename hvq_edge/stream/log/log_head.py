"""The head of a decision log, written aside: without it a cut-off end leaves no trace."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from hvq_edge.common.atomic import write_text
from hvq_edge.common.records import StrictTypes
from hvq_edge.errors import InputError
from hvq_edge.stream.log.hash_chain import LogRow
from hvq_edge.stream.log.log_file import base_of


class LogHead(StrictTypes):
    """A row that was the last one at some moment."""

    format: int = 1
    id: int
    hash: str
    time: float
    """Of that row: seconds since 1970, UTC."""


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
