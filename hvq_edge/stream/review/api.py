"""The review page's API: queues, images, what a person says, and the numbers that follow."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from hvq_edge.stream.live_page.api import CHANGES, READS, REFUSED, Heat, Jpeg, Refused
from hvq_edge.stream.live_page.schemas import Schema
from hvq_edge.stream.log.reviews import Judgement
from hvq_edge.stream.review.choice import Queue
from hvq_edge.stream.review.desk import Listed, ReviewDesk

router = APIRouter(responses=REFUSED)


async def _desk(request: Request) -> ReviewDesk:
    desk: ReviewDesk = request.app.state.served.review  # without one these routes are not there
    return desk


Desk = Annotated[ReviewDesk, Depends(_desk)]


class QueueState(Schema):
    """A queue."""

    name: Queue
    images: int
    """Decisions with an image."""
    judged: int
    """Of these."""
    gone: int
    """Decisions without an image, where that matters for the numbers."""


class ReviewState(Schema):
    """What there is to review."""

    may_change: bool
    """Whether this request carried the token."""
    live: bool
    """Whether a live page stands beside it."""
    can_explain: bool
    """Whether decisions can be explained."""
    reading: bool
    """Whether the log is still being read: ask again, there are no queues yet."""
    queues: tuple[QueueState, ...]
    kinds: tuple[str, ...]
    """Of defects, named so far; the most frequent first."""


class Judged(Schema):
    """What was said of a decision."""

    id: int
    """Of the review's row in the log."""
    time: float
    decision: int
    judgement: Judgement
    defect: str | None
    by: str
    why: str
    supersedes: int | None
    """Id of the review that it takes the place of."""


class QueueItem(Schema):
    """A decision that may be judged."""

    id: int
    """Of its row in the log."""
    time: float
    camera: str
    frame: int
    category: str | None
    score: float | None
    threshold: float | None
    p_value: float | None
    verdict: str
    reason: str
    image: str | None
    part: str | None
    review: Judged | None
    """``null``: it is still to be judged."""


class ReviewQueue(Schema):
    """Decisions of a queue, newest first."""

    items: tuple[QueueItem, ...]


class ReviewRequest(Schema):
    """Say something of a decision."""

    decision: int
    judgement: Judgement
    by: str
    """Who says it."""
    defect: str | None = None
    """What kind of defect."""
    why: str = ""


@router.get("/api/review", openapi_extra=READS)
def review_state(request: Request, desk: Desk) -> ReviewState:
    """How much there is to judge."""
    served, read = request.app.state.served, desk.read_on()
    return ReviewState(
        may_change=request.state.known,
        live=served.view is not None,
        can_explain=served.explainer is not None,
        reading=not read,
        queues=tuple(QueueState(**asdict(one)) for one in desk.counts()) if read else (),
        kinds=tuple(desk.kinds()) if read else (),
    )


@router.get("/api/review/queue", openapi_extra=READS)
def review_queue(
    desk: Desk,
    name: Annotated[Queue, Query(description="Which.")],
    judged: Annotated[bool, Query(description="With those that are judged.")] = False,
) -> ReviewQueue:
    """What is to be judged, the newest first."""
    return ReviewQueue(items=tuple(_item(one) for one in desk.listed(name, judged=judged)))


@router.get(
    "/api/review/{decision}/image.jpg",
    response_class=Jpeg,
    responses={204: {"description": "There is no image any more"}},
    openapi_extra=READS,
)
def review_image(
    desk: Desk,
    decision: Annotated[int, Path(ge=1, description="Id of the decision's row.")],
    heat: Heat = True,
) -> Response:
    """A decision's image; that of a decision which is not to be judged is refused with 404."""
    if not desk.knows(decision):
        raise Refused(404, f"there is no decision {decision} to be judged.", "ask for the queue")
    image = desk.image(decision, heat=heat)
    if image is None:  # it made room since the queue was asked for
        return Response(status_code=204)  # an error would stand in the browser's console
    return Jpeg(image, headers={"cache-control": "private, max-age=3600"})


@router.get("/api/review/numbers", openapi_extra=READS)
def review_numbers(desk: Desk) -> dict[str, Any]:
    """False rejects and misses, of all days together and by day."""
    together, days = desk.numbers()
    return {"together": together.to_dict(), "days": [one.to_dict() for one in days]}


@router.post("/api/review", dependencies=CHANGES)
def review(asked: ReviewRequest, desk: Desk) -> Judged:
    """Record what a person says of a decision; it is on the disk when the answer comes."""
    found = desk.judge(
        asked.decision, asked.judgement, by=asked.by, defect=asked.defect, why=asked.why
    )
    return _judged(found.details() | {"id": found.id, "time": found.time})


def _judged(values: dict[str, Any]) -> Judged:
    return Judged(**{name: values[name] for name in Judged.model_fields})


def _item(listed: Listed) -> QueueItem:
    known, said = listed.candidate, listed.review
    fields = {name: getattr(known, name) for name in QueueItem.model_fields if name != "review"}
    return QueueItem(**fields, review=None if said is None else _judged(asdict(said)))
