"""``POST /predict``, an image in and its verdict out, and ``POST /trigger``, a part is there."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future
from http import HTTPStatus
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from starlette.requests import ClientDisconnect

from hvq_edge.errors import ImageError
from hvq_edge.stream.live_page.api import CHANGES, REFUSED, Page, Refused, Served
from hvq_edge.stream.live_page.connections import LARGEST_IMAGE, PREDICT
from hvq_edge.stream.live_page.judge import PLACES, Answer, Busy, EngineFault, ImageJudge
from hvq_edge.stream.live_page.schemas import Prediction, Triggered, TriggerRequest

_RETRY_SECONDS = 1
_CLIENT_GONE = 499
"""As nginx calls it; nobody reads it."""
_IMAGE = {"schema": {"type": "string", "format": "binary"}}

router = APIRouter(responses=REFUSED)


class Png(Response):
    """A picture."""

    media_type = "image/png"


@router.post(
    PREDICT,
    dependencies=CHANGES,
    response_model=Prediction,
    responses={
        200: {
            "content": {"image/png": _IMAGE},
            "description": "The verdict; as PNG the overlay, with the verdict in X-Prediction",
        }
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": f"An image file, of up to {LARGEST_IMAGE >> 20} MiB: JPEG, PNG, BMP, "
            "TIFF or WebP. The content decides, not the media type.",
            "content": {"image/*": _IMAGE, "application/octet-stream": _IMAGE},
        }
    },
)
async def predict(
    request: Request,
    page: Page,
    form: Annotated[
        Literal["json", "overlay"] | None,
        Query(alias="as", description="What to answer; wins over Accept."),
    ] = None,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Judge an image; with Accept: image/png, answer the overlay, in the asker's language."""
    judge = page.judge
    if judge is None:
        raise Refused(409, "no images are judged here.", "use hvq-edge serve or predict")
    drawn = form == "overlay" if form else "image/png" in accept
    overlay = page.spoken(request) if drawn else None
    try:
        judge.enter()
    except Busy:
        raise Refused(
            503,
            f"{PLACES} images are on their way or being judged.",
            "send it again a little later",
            retry_seconds=_RETRY_SECONDS,
        ) from None
    on_its_way = judge.submit(await _body(request, judge), overlay=overlay)
    try:
        found = await _unless_gone(request, on_its_way)
    except ImageError as error:
        raise Refused(422, error.cause, error.next_step) from None
    except EngineFault as error:
        raise Refused(
            500, f"the engine failed: {error}", "see hvq-edge doctor; the next image gets a new one"
        ) from error
    if found is None:
        return Response(status_code=_CLIENT_GONE)
    result, picture = found
    answer = Prediction.model_validate(result.to_dict())
    if overlay is None:
        return Response(answer.model_dump_json(), media_type="application/json")
    found_in_short = json.dumps(answer.model_dump(exclude=_LONG))
    return Png(picture, headers={"x-prediction": found_in_short, "vary": "accept-language"})


_LONG = {"regions"}
"""Not for a header."""


async def _body(request: Request, judge: ImageJudge) -> bytes:
    """Read the body; whoever cannot send it gives the place back."""
    outcome = "refused"
    try:
        content = await request.body()
        if content:
            outcome = ""
            return content
    except (ClientDisconnect, asyncio.CancelledError):
        outcome = "gone"
        raise
    finally:
        if outcome:
            judge.leave(outcome)
    raise Refused(422, "the request brings no image.", "send the image itself as the body")


async def _unless_gone(request: Request, on_its_way: Future[Answer]) -> Answer | None:
    """Wait for an answer as long as there is somebody to take it."""
    waiting = asyncio.wrap_future(on_its_way)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
        return await waiting if waiting.done() else None
    finally:
        gone.cancel()
        waiting.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@router.post(
    "/trigger",
    dependencies=CHANGES,
    response_model=Triggered,
    responses={202: {"model": Triggered, "description": "Its decisions take longer"}},
)
async def trigger(page: Page, response: Response, asked: TriggerRequest | None = None) -> Triggered:
    """Take a frame of a triggered camera, and answer its decision."""
    asked = asked or TriggerRequest()
    name = _triggered_camera(page, asked.camera)
    part = (asked.part or "").strip()
    status, body = await to_thread.run_sync(page.triggers[name], part, limiter=page.for_triggers)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise Refused(503, "too many triggers wait.", "send it again later", _RETRY_SECONDS)
    response.status_code = status
    return Triggered.model_validate(body)


def _triggered_camera(page: Served, asked: str | None) -> str:
    names = tuple(page.triggers)
    if not names:
        raise Refused(
            409,
            "there is no camera." if page.view is None else "no camera waits for a trigger here.",
            "start hvq-edge stream with --trigger-port",
        )
    known = ", ".join(names)
    if asked is None:
        if len(names) > 1:
            raise Refused(422, "several cameras have a trigger.", f"name one of {known}")
        return names[0]
    if asked in page.triggers:
        return asked
    raise Refused(404, f"no camera {asked!r} waits for a trigger.", f"name one of {known}")
