"""Decisions that people may be shown, and what they said of them: read as the log grows."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from hvq_edge.errors import InputError
from hvq_edge.stream.log.chain import DECISION, SESSION_START, moment_of
from hvq_edge.stream.log.files import chain_files
from hvq_edge.stream.log.reader import BETWEEN, open_for_reading, row_with
from hvq_edge.stream.log.reviews import REVIEW, Review, in_force, parsed_review
from hvq_edge.stream.review.choice import NOTHING, Choice, Queue, choice_of

THRESHOLD = "threshold"
"""The kind of the row that says of a changed threshold."""
ALL_ROWS = -1
"""As SQLite counts."""
DAY_SECONDS = 86_400.0
MOST_UNDECIDED = 5000
"""Decisions ``no_decision`` that are remembered, the last ones: a camera that is lost for a night
gives one a frame, without an image."""
_COLUMNS = "id, kind, session, time, camera, frame, category, score, verdict, reason, more, hash"


@dataclass(frozen=True)
class Candidate:
    """A decision that may be judged by a person."""

    id: int
    """Of its row."""
    hash: str
    time: float
    """Seconds since 1970, UTC."""
    camera: str
    frame: int
    category: str | None
    score: float | None
    threshold: float | None
    """In force when it was made; ``None`` where that is not known."""
    verdict: str
    reason: str
    queue: Queue
    share: float
    """Of passes that its session kept by chance."""
    image: str | None
    part: str | None
    p_value: float | None

    @property
    def day(self) -> date:
        """Of its time, where this machine is."""
        return day_of(self.time)

    @property
    def local_time(self) -> datetime:
        """Of its time, where this machine is."""
        return moment_of(self.time)

    @property
    def excess(self) -> float:
        """By how much its score is above the threshold, in the threshold's size."""
        if self.score is None or self.threshold is None:
            return 0.0
        return (self.score - self.threshold) / (abs(self.threshold) or 1.0)


@dataclass(frozen=True)
class Stratum:
    """What passes are counted by: a day, and the share of them that was kept by chance."""

    day: date
    share: float


class Candidates:
    """Reads a log's new rows at each :meth:`update`; used by one thread at a time.

    Args:
        log: its first file, or its folder.
        since: only decisions from this moment on are counted, seconds since 1970.
        until: only those before this one.
        days: only those of the last days; older ones are forgotten.
    """

    def __init__(
        self,
        log: Path,
        since: float = -math.inf,
        until: float = math.inf,
        days: float | None = None,
    ) -> None:
        self._log = log
        self._since, self._until = since, until
        self._days = days
        self._forget()

    def _forget(self) -> None:
        self.found: dict[int, Candidate] = {}
        """By the id of the decision, in the order of the log."""
        self.reviews: list[Review] = []
        """All, in the order of the log."""
        self.passes: Counter[Stratum] = Counter()
        self.rejects: Counter[date] = Counter()
        self._undecided: deque[int] = deque()
        self._last = 0, ""  # id and hash of the last row that was read
        self._choices: dict[str, Choice] = {}  # by session
        self._thresholds: dict[str, float] = {}  # in force at that row

    def update(self, most: int = ALL_ROWS) -> bool:
        """Read what is new; all of it again where another log stands there.

        Args:
            most: rows to read of each file.

        Returns:
            Whether all is read.

        Raises:
            InputError: there is no log, or a file is damaged.
        """
        files = chain_files(self._log) or [self._log]
        last, last_hash = self._last
        if last:
            row = row_with(self._log, last)
            if row is None or row.hash != last_hash:
                self._forget()
        self._make_room()
        for path in files:
            with closing(open_for_reading(path)) as connection:
                query = f"SELECT {_COLUMNS} FROM log {BETWEEN} AND id > ? ORDER BY id LIMIT ?"  # noqa: S608
                values = (self._since, self._until, self._last[0], most)
                count = 0
                try:
                    for row in connection.execute(query, values):
                        self._take(*row)
                        count += 1
                except (sqlite3.DatabaseError, ValueError, TypeError, OverflowError) as error:
                    raise InputError(
                        f"{path} is damaged: {error}.", next_step=f"hvq-edge log verify {path}"
                    ) from error
            if count == most:
                return False
        return True

    def _make_room(self) -> None:
        """Forget decisions of days that are no longer asked for, and what was counted of them."""
        if self._days is None:
            return
        first = day_of(time.time() - self._days * DAY_SECONDS)
        # From a midnight on: of each day that is counted, all is.
        self._since = datetime.combine(first, datetime.min.time()).timestamp()
        for number in [one.id for one in self.found.values() if one.time < self._since]:
            del self.found[number]
        self._undecided = deque(number for number in self._undecided if number in self.found)
        self.passes = Counter({one: n for one, n in self.passes.items() if one.day >= first})
        self.rejects = Counter({day: n for day, n in self.rejects.items() if day >= first})

    def in_force(self) -> dict[int, Review]:
        """Return the review in force of each decision that has one."""
        return in_force(self.reviews)

    def _take(
        self,
        number: int,
        kind: str,
        session: str,
        at: float,
        camera: str | None,
        frame: int | None,
        category: str | None,
        score: float | None,
        verdict: str | None,
        reason: str | None,
        more: str,
        digest: str,
    ) -> None:
        self._last = number, digest
        if kind == DECISION:
            choice = self._choices.get(session, NOTHING)
            threshold = self._thresholds.get(category or "")
            day = day_of(at)
            if verdict == "pass":
                self.passes[Stratum(day, choice.sample)] += 1
            self.rejects[day] += verdict == "reject"
            queue = choice.queue(str(verdict), camera or "", frame or 0, score, threshold)
            if queue is None:
                return
            said = _object(more)
            self.found[number] = Candidate(
                number,
                digest,
                at,
                camera or "",
                frame or 0,
                category,
                score,
                threshold,
                str(verdict),
                reason or "",
                queue,
                choice.sample,
                _text(said.get("image")),
                _text(said.get("part")),
                _number(said.get("p_value")),
            )
            if queue == "no_decision":
                self._undecided.append(number)
                if len(self._undecided) > MOST_UNDECIDED:
                    del self.found[self._undecided.popleft()]
        elif kind == REVIEW:
            review = parsed_review(number, at, more)
            if review is not None:
                self.reviews.append(review)
        elif kind == SESSION_START:
            said = _object(more)
            self._choices[session] = choice_of(said)
            thresholds = said.get("thresholds")
            if isinstance(thresholds, dict):
                self._thresholds = {
                    name: value
                    for name, one in thresholds.items()
                    if (value := _number(one)) is not None
                }
        elif kind == THRESHOLD:
            said = _object(more)
            value = _number(said.get("to"))
            if value is not None:
                self._thresholds[str(said.get("category"))] = value


def day_of(seconds: float) -> date:
    """Return the day of a moment, where this machine is; a line's days are its people's."""
    return _day_of_quarter(int(seconds // 900))


@lru_cache(maxsize=4096)
def _day_of_quarter(quarter: int) -> date:
    # Every zone's midnight is a whole quarter of an hour of UTC.
    return moment_of(quarter * 900).date()


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else None  # type: ignore[arg-type]
