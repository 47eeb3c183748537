"""The rows of the decision log, each with the hash of the row before.

A row that is changed, removed, inserted or swapped breaks the chain there. Only someone who
rewrites every later row, and the head written aside, goes unseen: keep that head where the log's
owner cannot write.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from hvq_edge.verdict.decision import Decision, as_text

GENESIS = "0" * 64
"""What stands for the hash before the first row of the first file."""

DECISION = "decision"
FILE = "file"
"""The first row of each file: where its chain comes from."""
SESSION_START = "session_start"
SESSION_END = "session_end"
SESSION_LOST = "session_lost"
"""An inspector found that the one before it did not end its session: killed, or power was cut."""
HEAD_MISMATCH = "head_mismatch"
"""An inspector found a log that is not the one whose head was written aside: its end was cut off,
or it was replaced, or the head is gone."""
NOT_RECORDED = "not_recorded"
"""How many decisions a full or broken disk cost, written when there is room again."""


LAST_ID = 2**53
"""No row of an inspector has a larger id; up to it, all that reads JSON counts exactly."""

NAMES = ("image", "part")
"""Of a decision: which image it is on, and the serial number of which part."""


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


SELECT = f"SELECT {', '.join(LogRow._fields)} FROM log"  # noqa: S608  # our columns
"""Whole rows: to be followed by a condition, an order or nothing."""


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


def event_row(kind: str, session: str, at: float, details: Mapping[str, Any]) -> LogRow:
    """Return what the log says of an event, before it has a place in the chain."""
    return LogRow(id=0, kind=kind, session=session, time=float(at), more=as_json(details))


def file_row(log_id: str, before: LogRow | None = None, session: str = "") -> LogRow:
    """Return the first row of a file, which carries the last hash of the file before.

    Args:
        log_id: names the log among all others.
        before: the last row of the file before; ``None``: the log begins here.
        session: the run that goes on in the new file.
    """
    details = {"log": log_id, "continues": before is not None}
    return chained(event_row(FILE, session, time.time(), details), before)


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
    """Return a row as one flat object, without the chain's own columns and empty ones.

    What rows of the former form call ``part`` is the ``part_verdict`` of today.
    """
    own = ("id", "more", "previous", "hash")
    fields = {
        name: value
        for name, value in row._asdict().items()
        if name not in own and value is not None
    }
    if row.regions is not None:
        fields["regions"] = json.loads(row.regions)
    more = json.loads(row.more)
    if isinstance(more, dict) and isinstance(more.get("part"), dict):
        more["part_verdict"] = more.pop("part")
    return {**fields, **more}


def names_of(row: LogRow) -> dict[str, str | None]:
    """Return ``image`` and ``part`` of a row; ``None`` what it does not have, or is damaged."""
    try:
        more = json.loads(row.more)
    except (ValueError, TypeError, RecursionError):
        more = None
    found = {name: more.get(name) if isinstance(more, dict) else None for name in NAMES}
    return {name: value if isinstance(value, str) else None for name, value in found.items()}


def log_id_of(row: LogRow) -> str | None:
    """Return the log's id, given the first row of a file; ``None``: the row is damaged."""
    try:
        return str(json.loads(row.more)["log"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def moment_of(seconds: float, zone: timezone | None = None) -> datetime:
    """Return a row's time in a zone; ``None``: where this machine is.

    Raises:
        ValueError, OverflowError: no calendar has it: no inspector wrote it.
    """
    try:
        return datetime.fromtimestamp(seconds, zone).astimezone(zone)
    except OSError as error:  # beyond the years that the C library counts
        raise OverflowError(f"{seconds:g} is no time") from error


def as_json(value: object) -> str:
    """Return JSON of one form: sorted keys, no spaces, text that SQLite can hold."""
    text = json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return as_text(text)


def _text(value: str | None) -> str | None:
    """File names may hold bytes that are no text; SQLite takes none of these."""
    return None if value is None else as_text(value)


def _number(value: float | None) -> float | None:
    if value is None:
        return None
    if not math.isfinite(value):
        raise ValueError(f"a decision with {value} cannot be logged")
    # SQLite keeps whole numbers in a REAL column as integers: -0.0 would come back as 0.0.
    return float(value) + 0.0
