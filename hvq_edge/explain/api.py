"""``POST /api/explain``: why a decision scores what it scores, as a page."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import model_validator

from hvq_edge.design.language import speaking
from hvq_edge.errors import BundleError, ImageError
from hvq_edge.explain.explainer import PLACES, Explainer
from hvq_edge.stream.live_page.api import CHANGES, READS, REFUSED, Page, Refused, Served
from hvq_edge.stream.live_page.judge import Busy, EngineFault
from hvq_edge.stream.live_page.schemas import Schema

router = APIRouter(responses=REFUSED)

HEADERS = {
    # Its pictures and its style stand in the page itself; the live page shows it in a frame.
    "content-security-policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox",
    "x-frame-options": "SAMEORIGIN",
}
_RETRY_SECONDS = 1


class ExplainRequest(Schema):
    """Ask why a decision scores what it scores; name it in one of both ways."""

    sequence: int | None = None
    """Its number on the live page."""
    decision: int | None = None
    """Id of its row in the log."""

    @model_validator(mode="after")
    def _one_of_both(self) -> ExplainRequest:
        if (self.sequence is None) == (self.decision is None):
            raise ValueError("give either sequence or decision")
        return self


class Explained(Schema):
    """It is explained."""

    page: str
    """Path of the page; the last few are kept."""


@router.post("/api/explain", dependencies=CHANGES)
def explain(asked: ExplainRequest, request: Request, page: Page) -> Explained:
    """Explain a decision that the page shows; one is made at a time."""
    explainer = page.explainer
    assert explainer is not None  # without one this route is not there
    try:
        with speaking(page.spoken(request)):
            number = _explained(explainer, page, asked)
    except Busy:
        raise Refused(
            503,
            f"{PLACES} explanations are being made or waiting, or the engine has no time for one.",
            "ask again a little later",
            _RETRY_SECONDS,
        ) from None
    except ImageError as error:
        raise Refused(422, error.cause, error.next_step) from None
    except BundleError as error:
        raise Refused(409, error.cause, error.next_step) from None
    except EngineFault as error:
        raise Refused(500, f"the engine failed: {error}", "see hvq-edge doctor") from error
    return Explained(page=f"/api/explain/{number}")


@router.get("/api/explain/{number}", response_class=HTMLResponse, openapi_extra=READS)
def explanation(page: Page, number: Annotated[int, Path(ge=1)]) -> Response:
    """An explanation that was asked for."""
    assert page.explainer is not None
    found = page.explainer.page(number)
    if found is None:
        raise Refused(404, "this explanation has made room for others.", "ask for it again")
    return HTMLResponse(found, headers=HEADERS)


def _explained(explainer: Explainer, page: Served, asked: ExplainRequest) -> int:
    gone = Refused(
        404,
        "the image of this decision is not there any more.",
        "of the live page the last rejects and the newest images that it showed can be explained, "
        "of the review page what it lists",
    )
    if asked.sequence is not None:
        shot = page.view.history.shot(asked.sequence) if page.view is not None else None
        if shot is None:
            raise gone
        return explainer.of_shot(shot)
    kept = page.review.kept(asked.decision or 0) if page.review is not None else None
    if kept is None:
        raise gone
    candidate, file = kept
    try:
        return explainer.of_file(file, candidate.image or file.name, candidate.score)
    except OSError:  # it made room meanwhile
        raise gone from None
