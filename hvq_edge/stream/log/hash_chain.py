"""Rows of the decision log, each carrying the hash of the row before it.

Whoever changes, removes, inserts or swaps a row breaks the chain there. Only one who rewrites every
later row, and the head written aside, goes unseen: keep that head where the log's owner cannot
write.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from hvq_edge.verdict.decision import Decision

GENESIS = "0" * 64
"""What stands for the hash before the first row of the first file."""

DECISION = "decision"
FILE = "file"
"""The first row of each file: where its chain comes from."""
SESSION_START = "session_start"
SESSION_END = "session_end"
SESSION_LOST = "session_lost"
"""An inspector found that the one before it did not end its session: killed, or power was cut."""
NOT_RECORDED = "not_recorded"
"""How many decisions a full or broken disk cost, written when there is room again."""

_OWN_COLUMNS = ("camera", "frame", "time", "category", "score", "verdict", "reason", "latency_ms")


class Entry(NamedTuple):
    """What a row says, before it has a place in the chain; the types are those of the table."""

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


class LogRow(NamedTuple):
    """One row as it stands in the table ``log``."""

    id: int
    kind: str
    session: str
    time: float
    camera: str | None
    frame: int | None
    category: str | None
    score: float | None
    verdict: str | None
    reason: str | None
    latency_ms: float | None
    regions: str | None
    more: str
    previous: str
    hash: str


def chained(entry: Entry, number: int, previous: str) -> LogRow:
    """Give an entry its place in the chain.

    Args:
        entry: what the row says.
        number: its id.
        previous: hash of the row before, as 64 hexadecimal digits.
    """
    row = LogRow(number, *entry, previous, "")
    return row._replace(hash=hash_of(row))


def hash_of(row: LogRow) -> str:
    """Return SHA-256 over a canonical encoding of all columns but the hash itself.

    The encoding is the JSON array of the columns in the order of the table, without spaces, in
    UTF-8; numbers as Python writes them (the shortest form that reads back the same).
    """
    columns = list(row[:-1])
    text = json.dumps(columns, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def decision_entry(decision: Decision, session: str) -> Entry:
    """Return what a decision's row says; fields without a column of their own go into ``more``."""
    fields: dict[str, Any] = json.loads(decision.to_json())
    regions = fields.pop("regions", None)
    own = {name: fields.pop(name, None) for name in _OWN_COLUMNS}
    return Entry(
        kind=DECISION,
        session=session,
        time=_number(own["time"]) or 0.0,
        camera=_text(own["camera"]),
        frame=own["frame"],
        category=_text(own["category"]),
        score=_number(own["score"]),
        verdict=_text(own["verdict"]),
        reason=_text(own["reason"]),
        latency_ms=_number(own["latency_ms"]),
        regions=None if regions is None else as_json(regions),
        more=as_json(fields),
    )


def event_entry(kind: str, session: str, time: float, details: Mapping[str, Any]) -> Entry:
    """Return what the row of an event says."""
    return Entry(kind=kind, session=session, time=_number(time) or 0.0, more=as_json(details))


def fields_of(row: LogRow) -> dict[str, Any]:
    """Return a row as one flat object, without the chain's own columns and empty ones."""
    fields = {
        "kind": row.kind,
        "session": row.session,
        "time": row.time,
        "camera": row.camera,
        "frame": row.frame,
        "category": row.category,
        "score": row.score,
        "verdict": row.verdict,
        "reason": row.reason,
        "latency_ms": row.latency_ms,
        "regions": None if row.regions is None else json.loads(row.regions),
    }
    return {
        **{name: value for name, value in fields.items() if value is not None},
        **json.loads(row.more),
    }


def as_json(value: object) -> str:
    """Return JSON of one form: sorted keys, no spaces, text that SQLite can hold."""
    text = json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _text(value: object) -> str | None:
    """File names may hold bytes that are no text; SQLite takes none of these."""
    if value is None:
        return None
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _number(value: float | None) -> float | None:
    # SQLite keeps whole numbers in a REAL column as integers: -0.0 would come back as 0.0.
    return None if value is None else float(value) + 0.0
