"""The API: routes, checks of requests and the OpenAPI document follow from these signatures.

The functions run on threads of the server, not in its event loop, unless they are asynchronous.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from hvq_edge.errors import HvqEdgeError, SettingsError
from hvq_edge.stream.live_page.access import Access
from hvq_edge.stream.live_page.connections import Connections
from hvq_edge.stream.live_page.health import Health, HealthCheck
from hvq_edge.stream.live_page.history import Size
from hvq_edge.stream.live_page.images import VIEW_SIDE
from hvq_edge.stream.live_page.middleware import refuse
from hvq_edge.stream.live_page.page_view import PageView, preview, tested
from hvq_edge.stream.live_page.prometheus_metrics import CONTENT_TYPE, render_page
from hvq_edge.stream.live_page.schemas import (
    CategoryRequest,
    Decisions,
    Done,
    LoginRequest,
    PauseRequest,
    Preview,
    Refusal,
    Rejects,
    State,
    Tested,
    ThresholdRequest,
)

LOGIN_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True)
class Served:
    """What is served, and to whom."""

    view: PageView
    access: Access
    cookie: str = "hvq_edge"
    """Name of the cookie of a login: cookies do not tell ports apart, names do."""
    health: HealthCheck = field(default_factory=HealthCheck)
    images_per_second: float = 10.0
    """A browser is told to ask for no more."""
    connections: Connections | None = None
    """Counted in ``/metrics``; ``None`` where no server of ours is in front."""
    for_health: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))
    """Threads for ``/healthz``, which must answer while all others wait for a disk."""


class Refused(Exception):
    """The request is answered with a refusal."""

    def __init__(self, status: int, cause: str, next_step: str) -> None:
        super().__init__(cause)
        self.answer = refuse(status, cause, next_step)


class Jpeg(Response):
    """An image."""

    media_type = "image/jpeg"


async def _served(request: Request) -> Served:
    served: Served = request.app.state.served
    return served


Page = Annotated[Served, Depends(_served)]
Heat = Annotated[bool, Query(description="With the heat map.")]
_REFUSED: dict[str, Any] = {"description": "Refused", "model": Refusal}
_NO_IMAGE: dict[int | str, Any] = {204: {"description": "There is no image"}}
# Who may ask is decided by the middleware; these say so in the OpenAPI document.
_READS: dict[str, Any] = {"security": [{"token": []}, {}]}
_CHANGES = [Security(HTTPBearer(scheme_name="token", auto_error=False))]

router = APIRouter(responses={"4XX": _REFUSED, "5XX": _REFUSED})


@router.get("/api/state", openapi_extra=_READS)
def state(request: Request, page: Page) -> State:
    """Everything but images."""
    statistics = page.view.statistics()
    return page.view.state(
        statistics,
        page.health(statistics),
        may_change=request.state.known,
        image_interval_ms=1000.0 / page.images_per_second,
    )


@router.get("/api/decisions", openapi_extra=_READS)
def decisions(
    page: Page,
    after: Annotated[int, Query(ge=0, description="Only decisions after this one.")] = 0,
    part: Annotated[str | None, Query(description="Only of the part with this number.")] = None,
) -> Decisions:
    """Recent decisions."""
    history = page.view.history
    records = history.records(after)
    return Decisions(
        run=history.run,
        sequence=records[-1].sequence if records else history.sequence,
        decisions=tuple(one for one in records if part is None or one.part == part),
    )


@router.get("/api/rejects", openapi_extra=_READS)
def rejects(page: Page) -> Rejects:
    """The last rejects."""
    history = page.view.history
    return Rejects(run=history.run, rejects=tuple(history.rejects()))


@router.get(
    "/api/rejects/{sequence}/image.jpg",
    response_class=Jpeg,
    responses=_NO_IMAGE,
    openapi_extra=_READS,
)
def reject_image(
    page: Page,
    sequence: Annotated[int, Path(ge=0, description="Its decision's number.")],
    size: Size = "view",
    heat: Heat = True,
) -> Response:
    """A reject's image."""
    image = page.view.history.reject_image(sequence, size, heat=heat)
    if image is None:
        return Response(status_code=204)  # newer ones took its place while it was asked for
    return Jpeg(image, headers={"cache-control": "private, max-age=3600"})


@router.get(
    "/api/cameras/{index}/image.jpg",
    response_class=Jpeg,
    responses={**_NO_IMAGE, 304: {"description": "Still the one of If-None-Match"}},
    openapi_extra=_READS,
)
def camera_image(
    page: Page,
    index: Annotated[int, Path(ge=0, description="Position of the camera in the state.")],
    heat: Heat = True,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A camera's newest image; its decision stands in the header X-Decision."""
    cameras, history = page.view.statistics().cameras, page.view.history
    if index >= len(cameras):
        raise Refused(
            404,
            f"there is no camera {index}.",
            f"cameras are numbered from 0, and there are {len(cameras)} (/api/state)",
        )
    shot = history.newest(cameras[index].name)
    if shot is None:
        return Response(status_code=204)  # an error would stand in the browser's console
    tag = f'"{history.run}-{shot.record.sequence}-{int(heat)}"'
    if if_none_match == tag:
        return Response(status_code=304)
    image = shot.jpeg(VIEW_SIDE, heat=heat)
    # The verdict beside the image is that of this image, however slow the network is.
    headers = {"etag": tag, "x-decision": json.dumps(asdict(shot.record))}
    headers["cache-control"] = "no-cache"
    if image is None:
        return Response(status_code=204, headers=headers)
    return Jpeg(image, headers=headers)


@router.get("/api/preview", name="preview", openapi_extra=_READS)
def preview_threshold(
    page: Page,
    category: Annotated[str, Query(description="Whose frames count.")],
    threshold: Annotated[float, Query(allow_inf_nan=False, description="To try.")],
) -> Preview:
    """What a threshold would have done to recent frames."""
    in_force = _in_force(page, category)
    return preview(page.view.history.records(), category, threshold, in_force)


@router.get("/api/tested", openapi_extra=_READS)
def tested_images(
    page: Page,
    category: Annotated[str, Query(description="Whose test images count.")],
    threshold: Annotated[float, Query(allow_inf_nan=False, description="To try.")],
) -> Tested:
    """What thresholds do to labelled test images."""
    _in_force(page, category)
    return tested(page.view.labelled, category, threshold, page.view.controls.thresholds)


@router.post("/api/pause", dependencies=_CHANGES)
def pause(asked: PauseRequest, page: Page) -> Done:
    """Pause, or go on."""
    page.view.controls.paused = asked.paused
    return Done()


@router.post("/api/threshold", dependencies=_CHANGES)
def threshold(asked: ThresholdRequest, page: Page) -> Done:
    """Put a threshold in force; save it first, so that a full disk changes nothing."""
    _in_force(page, asked.category)
    if asked.save:
        if page.view.save_threshold is None:
            raise Refused(409, "thresholds cannot be saved here.", "apply it without saving")
        page.view.save_threshold(asked.category, asked.value)
    page.view.controls.set_threshold(asked.category, asked.value)
    return Done()


@router.post("/api/category", dependencies=_CHANGES)
def category(asked: CategoryRequest, page: Page) -> Done:
    """Choose what every frame is judged as."""
    choice = page.view.category
    if choice is None:
        raise Refused(
            409,
            "the model chooses the category itself.",
            "nothing is to be chosen; to choose it here, use a bundle that hvq-edge export "
            "--category input made",
        )
    if asked.category not in choice.names:
        known = ", ".join(choice.names)
        raise Refused(404, f"there is no category {asked.category!r}.", f"name one of {known}")
    choice.choose(asked.category)
    return Done()


@router.post("/api/login")
def login(asked: LoginRequest, request: Request, response: Response, page: Page) -> Done:
    """Get a cookie for the token."""
    if not page.access.is_token(asked.token.strip()):
        raise Refused(
            401,
            "this is not the token.",
            "take it from the token file, or from what the inspector printed when it started",
        )
    response.set_cookie(
        page.cookie,
        page.access.session,
        httponly=True,
        samesite="strict",
        secure=request.headers.get("x-forwarded-proto", request.scope["scheme"]) == "https",
        max_age=LOGIN_SECONDS,
    )
    return Done()


@router.post("/api/logout")
def logout(response: Response, page: Page) -> Done:
    """Forget the cookie."""
    response.delete_cookie(page.cookie, httponly=True, samesite="strict")
    return Done()


@router.get("/healthz", include_in_schema=False)
async def healthz(request: Request, response: Response, page: Page) -> Health:
    """For a monitor: 200 while frames are judged, else 503; reasons for those who may read."""
    health = await to_thread.run_sync(
        lambda: page.health(page.view.statistics()), limiter=page.for_health
    )
    response.status_code = 200 if health.working else 503
    return health if request.state.may_read else replace(health, failing=(), degraded=())


@router.get("/metrics", include_in_schema=False)
def metrics(page: Page) -> Response:
    """For Prometheus."""
    if page.view.metrics is None:
        raise Refused(404, "no metrics are kept.", "serve the page with hvq-edge stream --page")
    content = page.view.metrics(page.view.statistics())
    if page.connections is not None:
        content += render_page(page.connections)
    return Response(content, media_type=CONTENT_TYPE)


def _in_force(page: Served, category: str) -> float:
    thresholds = page.view.controls.thresholds
    if category not in thresholds:
        known = ", ".join(thresholds)
        remedy = f"name one of {known}" if known else "run hvq-edge calibrate on the bundle first"
        raise Refused(404, f"{category!r} has no threshold.", remedy)
    return thresholds[category]


REFUSALS = (Refused, HvqEdgeError, RequestValidationError, HTTPException)


async def answer_refusal(_request: Request, error: Exception) -> Response:
    """Answer one of :data:`REFUSALS`: 422 for what was asked, 507 for what cannot be written."""
    match error:
        case Refused():
            return error.answer
        case SettingsError():
            return refuse(422, error.cause, error.next_step)
        case HvqEdgeError():
            return refuse(507, error.cause, error.next_step)
        case RequestValidationError():
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
            )
            return refuse(422, f"the request cannot be understood: {faults}.", "see /openapi.json")
        case HTTPException():  # of the router: there is no such path, or not for this method
            answer = refuse(error.status_code, f"{error.detail}.", "see /openapi.json")
            answer.headers.update(error.headers or {})  # the methods that are allowed
            return answer
    raise error
