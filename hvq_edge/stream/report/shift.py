"""What a log says of a line between two moments: gathered for the shift report."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.errors import InputError, OutputError
from hvq_edge.stream.log.chain import DECISION, FILE, LogRow, fields_of, moment_of, names_of
from hvq_edge.stream.log.files import base_of
from hvq_edge.stream.log.reader import all_rows, decision_span
from hvq_edge.stream.log.reviews import REVIEW, Review
from hvq_edge.stream.log.verification import LogVerification, verify_log
from hvq_edge.stream.report.events import (
    Event,
    ThresholdChange,
    changes_of,
    is_usual,
    said_of,
)
from hvq_edge.stream.report.groups import NAMES_DAYS, Describe, Groups, group_rejects
from hvq_edge.stream.review.candidates import DAY_SECONDS, THRESHOLD, Candidate
from hvq_edge.stream.review.desk import ReviewDesk
from hvq_edge.stream.review.numbers import LineNumbers

MOST_WORST = 12
"""Rejects that are shown, those that are furthest above their threshold."""
THUMBNAIL_SIDE = 320
"""Pixels of their longest side."""
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.]*\w)")


@dataclass
class Counts:
    """Decisions of one camera, category or hour."""

    passed: int = 0
    rejected: int = 0
    no_decision: int = 0
    good_rejects: int = 0
    """Rejects that a person called good."""
    judged_rejects: int = 0
    missed: int = 0
    """Passes, of the sample or near misses, that a person called defective."""
    judged_passes: int = 0

    @property
    def decisions(self) -> int:
        """All of them."""
        return self.passed + self.rejected + self.no_decision

    @property
    def rejected_share(self) -> float:
        """Of those that were decided."""
        return self.rejected / max(self.passed + self.rejected, 1)


@dataclass(frozen=True)
class Cell:
    """Where decisions are counted together."""

    hour: datetime
    """Its beginning, where this machine is."""
    camera: str
    category: str
    """Empty: the line gave none."""


@dataclass(frozen=True)
class Worst:
    """A reject that is shown."""

    candidate: Candidate
    review: Review | None
    image: bytes | None
    """JPEG; ``None``: it is no longer there."""


@dataclass
class Shift:
    """All that the report says."""

    log: Path
    since: datetime
    until: datetime
    cells: dict[Cell, Counts] = field(default_factory=dict)
    parts: int = 0
    """Different serial numbers; 0: none is known."""
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By verdict and reason, numbers left out."""
    grades: Counter[str] = field(default_factory=Counter)
    """Of rejects."""
    alarms: list[Event] = field(default_factory=list)
    """Drift, images unlike the training images, and whatever else is not usual."""
    usual: list[Event] = field(default_factory=list)
    """Sessions, pauses and gaps of cameras."""
    changes: list[ThresholdChange] = field(default_factory=list)
    numbers: LineNumbers | None = None
    """What people said of the decisions; ``None``: there are none."""
    defects: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By category and kind, as people named them."""
    worst: list[Worst] = field(default_factory=list)
    """By how far the score is above the threshold, the furthest first."""
    groups: Groups | None = None
    """Rejects that look alike; ``None``: that was not asked for."""
    elsewhere: str = ""
    """When the log's decisions are, in words; empty: there are some in the report's time."""
    has_page: bool = False
    """Whether the line had a live page at the end."""
    reviewers: Counter[str] = field(default_factory=Counter)
    verification: LogVerification | None = None

    @property
    def total(self) -> Counts:
        """Of all cells."""
        return _sum(self.cells.values())

    def by(self, key: Callable[[Cell], Any]) -> dict[Any, Counts]:
        """Return the counts by an attribute of their cells, in its order."""
        keys = sorted({key(cell) for cell in self.cells})
        return {
            one: _sum(counts for cell, counts in self.cells.items() if key(cell) == one)
            for one in keys
        }


def gather_shift(
    log: Path,
    since: datetime,
    until: datetime,
    worst: int = MOST_WORST,
    describe: Describe | None = None,
    on_progress: ProgressCallback = silent,
) -> Shift:
    """Read what a log says of the time between two moments.

    Args:
        log: any of its files, or its folder.
        since: with its time zone.
        until: likewise, after it.
        worst: rejects that are shown.
        describe: says what a region looks like; ``None``: rejects are not grouped.
        on_progress: called after each reject that was looked at.

    Raises:
        InputError: there is no log, or it is damaged; or the two moments are the wrong way round.
    """
    if since >= until:
        raise InputError(
            f"{since:%Y-%m-%d %H:%M} is no earlier than {until:%Y-%m-%d %H:%M}, so nothing lies "
            f"between them; {_decisions_said(log)}.",
            next_step="give an earlier moment with --from, or a later one with --to",
        )
    begin, end = since.timestamp(), until.timestamp()
    shift = Shift(base_of(log), since, until)
    names: set[str] = set()
    thresholds: dict[str, float] = {}
    for row in all_rows(log, between=(begin, end)):
        within = begin <= row.time < end
        if row.kind == DECISION:
            _count(shift, row, names)
        elif row.kind in (THRESHOLD, "session_start"):
            if row.kind == "session_start" and row.time < end:
                shift.has_page = bool(fields_of(row).get("page"))
            for change in changes_of(row, thresholds):
                if within:
                    shift.changes.append(change)
        if within and row.kind not in (DECISION, FILE, REVIEW, THRESHOLD):
            event = Event(row.id, moment_of(row.time), row.kind, said_of(row))
            (shift.usual if is_usual(row) else shift.alarms).append(event)
    shift.parts = len(names)
    if not shift.cells:
        shift.elsewhere = _decisions_said(log)
    _add_reviews(shift, log, begin, end, worst)
    if describe is not None:
        before = ReviewDesk(log, _never, since=begin - NAMES_DAYS * DAY_SECONDS, until=end)
        shift.groups = group_rejects(before, describe, begin, shift.total.rejected, on_progress)
    shift.verification = verify_log(log)
    return shift


def moments(
    since: str | None, until: str | None, now: datetime | None = None
) -> tuple[datetime, datetime]:
    """Return the two moments that a person has named.

    Args:
        since: a day or a moment, ISO 8601; ``None``: the beginning of the day of ``until``.
        until: likewise, of a day its end; ``None``: now.
        now: the present moment, with its time zone.

    Raises:
        InputError: one of them is no time.
    """
    end = now or datetime.now().astimezone()
    if until is not None:
        end = _parsed("--to", until, days=int(_is_day(until)))
    if since is not None:
        return _parsed("--from", since), end
    last = moment_of(end.timestamp() - 1e-6)
    return datetime.combine(last.date(), time.min).astimezone(), end


def _decisions_said(log: Path) -> str:
    """Say when a log's decisions are."""
    span = decision_span(log)
    if span is None:
        return "the log has no decision at all"
    first, last = (f"{moment_of(at):%Y-%m-%d %H:%M:%S}" for at in span)
    return f"the log's decisions are from {first} to {last}"


def _is_day(text: str) -> bool:
    return re.fullmatch(r"\d{4}-\d{2}-\d{2}", text.strip()) is not None


def _parsed(option: str, text: str, days: int = 0) -> datetime:
    """Return a moment, some days after one that is named: a day may have 23 or 25 hours."""
    try:
        # Python 3.10 does not know the Z; where no zone is named, it is that of this machine.
        named = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip()))
        return (named + timedelta(days=days)).astimezone()
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{option} {text} is no time.", next_step="write it as 2026-11-29T06:00"
        ) from error


def _count(shift: Shift, row: LogRow, names: set[str]) -> None:
    counts = shift.cells.setdefault(cell_of(row.time, row.camera, row.category), Counts())
    if row.verdict == "pass":
        counts.passed += 1
    elif row.verdict == "reject":
        counts.rejected += 1
    else:
        counts.no_decision += 1
    if '"part":"' in row.more:
        names.add(str(names_of(row)["part"]))
    if row.verdict != "pass":
        shift.reasons[str(row.verdict), _NUMBER.sub("…", row.reason or "")] += 1
    if row.verdict == "reject" and (grade := fields_of(row).get("grade")):
        shift.grades[str(grade)] += 1


def _add_reviews(shift: Shift, log: Path, begin: float, end: float, worst: int) -> None:
    desk = ReviewDesk(log, _never, since=begin, until=end)
    shift.numbers, _ = desk.numbers()
    judged = {candidate.id: review for candidate, review, _ in desk.judged_images()}
    for candidate, review, _ in desk.judged_images():
        shift.reviewers[review.by] += 1
        cell = cell_of(candidate.time, candidate.camera, candidate.category)
        counts = shift.cells.setdefault(cell, Counts())
        if review.judgement in ("good", "defective"):
            if candidate.verdict == "reject":
                counts.judged_rejects += 1
                counts.good_rejects += review.judgement == "good"
            elif candidate.verdict == "pass":
                counts.judged_passes += 1
                counts.missed += review.judgement == "defective"
        if review.defect is not None:
            shift.defects[candidate.category or "", review.defect] += 1
    for candidate in desk.worst(worst):
        image = desk.image(candidate.id, heat=True, longest=THUMBNAIL_SIDE)
        shift.worst.append(Worst(candidate, judged.get(candidate.id), image))


def _never(_: Review) -> int:
    raise OutputError("a report records nothing.")


def cell_of(at: float, camera: str | None, category: str | None) -> Cell:
    """Return where a decision of that time, camera and category is counted."""
    return Cell(_hour(int(at // 900)), camera or "", category or "")


@lru_cache(maxsize=4096)
def _hour(quarter: int) -> datetime:
    # Every zone's hours begin at a whole quarter of an hour of UTC.
    return moment_of(quarter * 900).replace(minute=0, second=0, microsecond=0)


def _sum(counts: Iterable[Counts]) -> Counts:
    total = Counts()
    for one in counts:
        for name, value in vars(one).items():
            setattr(total, name, getattr(total, name) + value)
    return total


def shift_values(shift: Shift) -> Mapping[str, Any]:
    """Return the report's numbers as JSON values."""
    total = shift.total
    return {
        "log": str(shift.log),
        "from": shift.since.isoformat(),
        "to": shift.until.isoformat(),
        "decisions": total.decisions,
        "pass": total.passed,
        "reject": total.rejected,
        "no_decision": total.no_decision,
        "parts": shift.parts,
        "alarms": len(shift.alarms),
        "threshold_changes": len(shift.changes),
        "reviews": None if shift.numbers is None else shift.numbers.to_dict(),
        "defects": [
            {"category": category, "defect": defect, "count": count}
            for (category, defect), count in shift.defects.most_common()
        ],
        "groups": None if shift.groups is None else _group_values(shift.groups),
        "decisions_elsewhere": shift.elsewhere or None,
        "log_is_whole": shift.verification is not None and shift.verification.whole,
    }


def _group_values(groups: Groups) -> dict[str, Any]:
    return {
        "rejects": groups.rejects,
        "too_few": groups.too_few,
        "without": groups.without,
        "groups": [
            {
                "name": group.name or None,
                "rejects": [one.id for one in group.rejects],
                "category": group.category or None,
                "cameras": dict(group.cameras),
                "judged": dict(group.said.most_common()),
            }
            for group in groups.groups
        ],
    }
