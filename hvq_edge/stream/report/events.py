"""Events of a log in words, and the changes of thresholds that they tell of."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from hvq_edge.stream.log.chain import LogRow, fields_of, moment_of
from hvq_edge.stream.review.candidates import THRESHOLD

_USUAL = {"session_start", "session_end", "paused", "gap_start", "gap_end", "drift_end"}
"""Events of a line that works as it should or as somebody asked, and lost cameras."""


@dataclass(frozen=True)
class Event:
    """An event of the log."""

    id: int
    time: datetime
    kind: str
    said: str
    """In words; of kinds that are not known here what the log says of it."""


@dataclass(frozen=True)
class ThresholdChange:
    """A threshold that was changed while the line ran, or between two runs."""

    time: datetime
    category: str
    former: float | None
    value: float | None
    by: str
    """Who; empty: that was not said."""
    between_runs: bool = False
    """Whether a run began with another one than the run before it had."""


def changes_of(row: LogRow, thresholds: dict[str, float]) -> Iterable[ThresholdChange]:
    """Give what a row says of changed thresholds, and keep those in force."""
    said = json.loads(row.more)
    at = moment_of(row.time)
    if row.kind == THRESHOLD:
        category, value = str(said.get("category")), said.get("to")
        yield ThresholdChange(at, category, said.get("from"), value, str(said.get("by", "")))
        if isinstance(value, (int, float)):
            thresholds[category] = float(value)
        return
    new = said.get("thresholds")
    if not isinstance(new, dict):
        return
    for category, value in new.items():
        former = thresholds.get(category)
        if former is not None and former != value:
            yield ThresholdChange(at, category, former, value, "", between_runs=True)
    thresholds.clear()
    thresholds.update(new)


def is_usual(row: LogRow) -> bool:
    """Tell whether an event is no alarm; the end of one is none."""
    return row.kind in _USUAL or (row.kind == "unlike" and not fields_of(row).get("to"))


def said_of(row: LogRow) -> str:
    """Say an event in words: known kinds in sentences, others as the log has them."""
    said = {name: value for name, value in fields_of(row).items() if name not in _OF_ROWS}
    camera = said.get("camera")
    match row.kind:
        case "unlike":
            what = said.get("to") or "images are like the training images again"
            return f"{camera}: {what}"
        case "gap_start":
            return f"{camera} is lost: {said.get('fault')}"
        case "gap_end":
            return f"{camera} is back after {said.get('frames')} frames without image"
        case "transport":
            counts = {kind: said.get(kind, 0) for kind in ("missed", "doubled", "incomplete")}
            frames = ", ".join(f"{number} {kind}" for kind, number in counts.items() if number)
            return f"{camera}: frames {frames}: {said.get('what')}"
        case "drift":
            since = said.get("since")
            at = f" since {moment_of(since):%H:%M}" if isinstance(since, float) else ""
            return f"{camera}, {said.get('category')}: {said.get('what')}{at}: {said.get('remedy')}"
        case "drift_end":
            return f"{camera}, {said.get('category')}: no longer {said.get('what')}"
        case "paused":
            return "paused" if said.get("to") else "goes on"
        case "session_start":
            return f"hvq-edge {said.get('version', '')} starts".replace("  ", " ")
        case "session_end":
            return "ends"
        case "session_lost":
            return "an inspector was killed, or the power was cut"
        case "not_recorded":
            return f"{said.get('decisions')} decisions were not recorded"
        case "head_mismatch":
            return f"the log was not as it was written: {said.get('what')}"
    return "; ".join(f"{name} {_value(value)}" for name, value in sorted(said.items()))


_OF_ROWS = {"kind", "session", "time"}


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
