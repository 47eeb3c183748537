"""What people said of decisions: rows of the kind ``review`` in the decision log.

A review names the row that it judges by its id and hash, and changes nothing of it. A later one of
the same decision names the one that it takes the place of; both stay.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from hvq_edge.common.records import Extensible
from hvq_edge.errors import HvqEdgeError, InputError
from hvq_edge.stream.log.chain import (
    SESSION_START,
    LogRow,
    chained,
    event_row,
    fields_of,
    log_id_of,
)
from hvq_edge.stream.log.files import LogTaken, base_of, chain_files, lock_log
from hvq_edge.stream.log.head import head_path, newest_head, write_head
from hvq_edge.stream.log.reader import all_rows, last_event
from hvq_edge.stream.log.sqlite_file import LogFile
from hvq_edge.stream.log.verification import doubt_of
from hvq_edge.stream.sinks.files.retention import check_room

REVIEW = "review"
"""The kind of such rows."""

Judgement = Literal["good", "defective", "skip", "withdrawn"]
"""``skip``: the person could not say. ``withdrawn``: the review before it is taken back."""


class _Details(Extensible):
    """What such a row says, checked: a row that was changed must not break a page."""

    decision: int = Field(ge=1)
    decision_hash: str
    judgement: Judgement
    defect: str | None = None
    by: str
    why: str = ""
    supersedes: int | None = None


@dataclass(frozen=True)
class Review:
    """What somebody said of a decision."""

    decision: int
    """Id of the decision's row."""
    decision_hash: str
    judgement: Judgement
    defect: str | None
    """What kind of defect; ``None`` unless it is defective."""
    by: str
    """The name that the person gave."""
    why: str
    """In the person's words; often empty."""
    supersedes: int | None
    """Id of the review that this one takes the place of."""
    id: int = 0
    """Of its own row; 0 before it has one."""
    time: float = 0.0
    """Seconds since 1970, UTC."""

    def details(self) -> dict[str, Any]:
        """Return what its row says."""
        return {name: value for name, value in asdict(self).items() if name not in ("id", "time")}


def review_of(row: LogRow) -> Review | None:
    """Return what a row says; ``None``: it is none of these, or damaged."""
    return None if row.kind != REVIEW else parsed_review(row.id, row.time, row.more)


def parsed_review(number: int, at: float, more: str) -> Review | None:
    """Return what a row of this kind says, given its id, time and details; ``None``: damaged."""
    try:
        said = _Details.model_validate_json(more)
    except ValidationError:
        return None
    return Review(id=number, time=at, **said.model_dump())


def latest_reviews(log: Path) -> dict[int, Review]:
    """Return the review in force of each decision that has one, by the decision's id.

    Args:
        log: any file of the log, or its folder.

    Raises:
        InputError: there is no log, or a file is damaged.
    """
    return in_force(found for row in all_rows(log) if (found := review_of(row)) is not None)


def in_force(reviews: Iterable[Review]) -> dict[int, Review]:
    """Return the last review of each decision, unless it was withdrawn.

    Args:
        reviews: in the order of their rows.
    """
    last = {review.decision: review for review in reviews}
    return {number: one for number, one in last.items() if one.judgement != "withdrawn"}


def append_review(log: Path, review: Review, head: Path | None = None) -> int:
    """Add a review to a log that no inspector writes to, and return the id of its row.

    The log is taken for a moment only, so an inspector may start between two reviews.

    Args:
        log: any file of the log, or its folder.
        review: what is added.
        head: where the log's head is kept; ``None``: beside it, or where a link there leads.

    Raises:
        InputError: there is no log, or it is not the one whose head was written.
        LogTaken: an inspector writes to it.
        OutputError: it cannot be written.
    """
    with _taken(log, head) as (file, place):
        first, last = file.first(), file.last()
        row = chained(event_row(REVIEW, "", time.time(), review.details()), last)
        file.append([row])
        write_head(place, row, log_id_of(first), base_of(log))
    return row.id


def check_takes_reviews(log: Path, head: Path | None = None) -> None:
    """Check that a review could be added to a log now; takes and raises as that does."""
    with _taken(log, head):
        pass


@contextmanager
def _taken(log: Path, head: Path | None) -> Iterator[tuple[LogFile, Path]]:
    """Give the newest file of a log, for this process alone, and the place of its head."""
    base = base_of(log)
    files = chain_files(base)
    if not files:
        raise InputError(
            f"there is no decision log {base}.",
            next_step="name the decisions.sqlite that hvq-edge stream --out wrote, or its folder",
        )
    place = (head or head_path(base)).resolve()
    try:
        lock = lock_log(base)
    except LogTaken as error:
        raise LogTaken(error.cause, next_step=_where_instead(base)) from error
    try:
        check_room(base.parent)
        file = LogFile(files[-1])
        try:
            doubt = doubt_of(base, file.last(), newest_head(base, place))
            if doubt:
                raise InputError(
                    f"the log {base} is not as it was written: {doubt}.",
                    next_step=f"hvq-edge log verify {base}; where its head is kept elsewhere, name "
                    "that with --head",
                )
            yield file, place
        finally:
            file.close()
    finally:
        lock.release()


def _where_instead(log: Path) -> str:
    """Say where people can review while an inspector has the log."""
    has_page = None
    with suppress(HvqEdgeError, ValueError, AttributeError):  # a damaged log
        session = last_event(log, SESSION_START)
        has_page = None if session is None else fields_of(session).get("page")
    if has_page:
        return "review on the inspector's live page, at /review"
    if has_page is None:  # of a version that did not say it
        return "review on the inspector's live page, at /review, if it has one; else end it first"
    return "end the inspector first; started with --page, it has a review page of its own"
