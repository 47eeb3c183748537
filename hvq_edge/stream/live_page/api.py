"""The API: routes, checks of requests and the OpenAPI document follow from these signatures.

The functions run on threads of the server, not in its event loop, unless they are asynchronous.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from hvq_edge.design.language import Language, current, language_of, preferred
from hvq_edge.errors import HvqEdgeError, SettingsError
from hvq_edge.stream.live_page.access import Access
from hvq_edge.stream.live_page.connections import Connections
from hvq_edge.stream.live_page.health import Health, HealthCheck
from hvq_edge.stream.live_page.history import Size
from hvq_edge.stream.live_page.images import VIEW_SIDE
from hvq_edge.stream.live_page.judge import ImageJudge
from hvq_edge.stream.live_page.middleware import refuse
from hvq_edge.stream.live_page.page_view import PageView, preview, tested
from hvq_edge.stream.live_page.prometheus_metrics import CONTENT_TYPE, render_judge, render_page
from hvq_edge.stream.live_page.schemas import (
    CategoryRequest,
    Decisions,
    Done,
    DriftRequest,
    LoginRequest,
    PauseRequest,
    Preview,
    Refusal,
    Rejects,
    State,
    Tested,
    ThresholdRequest,
)
from hvq_edge.stream.log.files import LogTaken
from hvq_edge.stream.log.sqlite_file import LogLocked

if TYPE_CHECKING:
    from hvq_edge.explain.explainer import Explainer
    from hvq_edge.stream.review.desk import ReviewDesk

LOGIN_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True)
class Served:
    """What is served, and to whom."""

    view: PageView | None
    """``None``: there is no line, images are judged and no more."""
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
    judge: ImageJudge | None = None
    """Of images that requests bring."""
    review: ReviewDesk | None = None
    """Where people judge decisions; ``None`` where none are recorded."""
    explainer: Explainer | None = None
    """Says why a decision scores what it scores."""
    triggers: Mapping[str, Callable[[str], tuple[int, dict[str, Any]]]] = field(
        default_factory=dict
    )
    """By camera: trigger it for a part with this serial number (empty: it is not known), wait a
    while, and give status and body of the answer, as
    :meth:`hvq_edge.stream.sources.http_trigger.HttpTrigger.request`."""
    for_triggers: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(16))
    """Threads that wait for decisions."""

    language: str | None = None
    """Of its pages; ``None``: the one that the browser asks for."""

    def spoken(self, request: Request) -> Language:
        """Return the language that a request is answered in."""
        if self.language is not None:
            return language_of(self.language)
        asked = request.headers.get("accept-language")
        return current() if asked is None else preferred(asked)  # programs seldom name one

    def working(self) -> Health:
        """Judge what there is: the line, else what judges images."""
        if self.view is not None:
            return self.health(self.view.statistics())
        fault = self.judge.fault if self.judge is not None else ""
        return Health(not fault, (fault,) if fault else (), ())


class Refused(Exception):
    """The request is answered with a refusal."""

    def __init__(
        self, status: int, cause: str, next_step: str, retry_seconds: int | None = None
    ) -> None:
        super().__init__(cause)
        self.answer = refuse(status, cause, next_step, retry_seconds)


class Jpeg(Response):
    """An image."""

    media_type = "image/jpeg"


async def _served(request: Request) -> Served:
    served: Served = request.app.state.served
    return served


async def _view(request: Request) -> PageView:
    view: PageView = request.app.state.served.view  # without one these routes are not there
    return view


Page = Annotated[Served, Depends(_served)]
View = Annotated[PageView, Depends(_view)]
Heat = Annotated[bool, Query(description="With the heat map.")]
_REFUSED: dict[str, Any] = {"description": "Refused", "model": Refusal}
_NO_IMAGE: dict[int | str, Any] = {204: {"description": "There is no image"}}
# Who may ask is decided by the middleware; these say so in the OpenAPI document.
READS: dict[str, Any] = {"security": [{"token": []}, {}]}
CHANGES = [Security(HTTPBearer(scheme_name="token", auto_error=False))]
REFUSED: dict[int | str, Any] = {"4XX": _REFUSED, "5XX": _REFUSED}

router = APIRouter(responses=REFUSED)
"""Of the page: what needs a line."""
common = APIRouter(responses=REFUSED)
"""Logins, and what machines ask for."""


@router.get("/api/state", openapi_extra=READS)
def state(request: Request, page: Page, view: View) -> State:
    """Everything but images."""
    statistics = view.statistics()
    return view.state(
        statistics,
        page.health(statistics),
        may_change=request.state.known,
        image_interval_ms=1000.0 / page.images_per_second,
        can_review=page.review is not None,
        can_explain=page.explainer is not None,
    )


@router.get("/api/decisions", openapi_extra=READS)
def decisions(
    view: View,
    after: Annotated[int, Query(ge=0, description="Only decisions after this one.")] = 0,
    part: Annotated[str | None, Query(description="Only of the part with this number.")] = None,
) -> Decisions:
    """Recent decisions."""
    history = view.history
    records = history.records(after)
    return Decisions(
        run=history.run,
        sequence=records[-1].sequence if records else history.sequence,
        decisions=tuple(one for one in records if part is None or one.part == part),
    )


@router.get("/api/rejects", openapi_extra=READS)
def rejects(view: View) -> Rejects:
    """The last rejects."""
    history = view.history
    return Rejects(run=history.run, rejects=tuple(history.rejects()))


@router.get(
    "/api/rejects/{sequence}/image.jpg",
    response_class=Jpeg,
    responses=_NO_IMAGE,
    openapi_extra=READS,
)
def reject_image(
    view: View,
    sequence: Annotated[int, Path(ge=0, description="Its decision's number.")],
    size: Size = "view",
    heat: Heat = True,
) -> Response:
    """A reject's image."""
    image = view.history.reject_image(sequence, size, heat=heat)
    if image is None:
        return Response(status_code=204)  # newer ones took its place while it was asked for
    return Jpeg(image, headers={"cache-control": "private, max-age=3600"})


@router.get(
    "/api/cameras/{index}/image.jpg",
    response_class=Jpeg,
    responses={**_NO_IMAGE, 304: {"description": "Still the one of If-None-Match"}},
    openapi_extra=READS,
)
def camera_image(
    page: Page,
    view: View,
    index: Annotated[int, Path(ge=0, description="Position of the camera in the state.")],
    heat: Heat = True,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A camera's newest image; its decision stands in the header X-Decision."""
    cameras, history = view.statistics().cameras, view.history
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
    if page.explainer is not None:
        view.history.remember(shot)
    # The verdict beside the image is that of this image, however slow the network is.
    headers = {"etag": tag, "x-decision": json.dumps(asdict(shot.record))}
    headers["cache-control"] = "no-cache"
    if image is None:
        return Response(status_code=204, headers=headers)
    return Jpeg(image, headers=headers)


@router.get("/api/preview", name="preview", openapi_extra=READS)
def preview_threshold(
    view: View,
    category: Annotated[str, Query(description="Whose frames count.")],
    threshold: Annotated[float, Query(allow_inf_nan=False, description="To try.")],
) -> Preview:
    """What a threshold would have done to recent frames."""
    in_force = _in_force(view, category)
    return preview(view.history.records(), category, threshold, in_force)


@router.get("/api/tested", openapi_extra=READS)
def tested_images(
    view: View,
    category: Annotated[str, Query(description="Whose test images count.")],
    threshold: Annotated[float, Query(allow_inf_nan=False, description="To try.")],
) -> Tested:
    """What thresholds do to labelled test images."""
    _in_force(view, category)
    return tested(view.labelled, category, threshold, view.controls.thresholds)


@router.post("/api/pause", dependencies=CHANGES)
def pause(asked: PauseRequest, view: View) -> Done:
    """Pause, or go on."""
    view.controls.paused = asked.paused
    return Done()


@router.post("/api/threshold", dependencies=CHANGES)
def threshold(asked: ThresholdRequest, view: View) -> Done:
    """Put a threshold in force; save it first, so that a full disk changes nothing."""
    _in_force(view, asked.category)
    if asked.save:
        if view.save_threshold is None:
            raise Refused(409, "thresholds cannot be saved here.", "apply it without saving")
        view.save_threshold(asked.category, asked.value)
    view.controls.set_threshold(asked.category, asked.value, " ".join(asked.by.split()))
    return Done()


@router.post("/api/drift", dependencies=CHANGES)
def acknowledge_drift(asked: DriftRequest, view: View) -> Done:
    """End a camera's alarms of drift, and learn anew what is usual."""
    if view.acknowledge_drift is None:
        raise Refused(409, "drift is not looked for here.", "see [drift] in the settings file")
    cameras = [camera.name for camera in view.statistics().cameras]
    if asked.camera not in cameras:
        known = ", ".join(cameras)
        raise Refused(404, f"there is no camera {asked.camera!r}.", f"name one of {known}")
    view.acknowledge_drift(asked.camera)
    return Done()


@router.post("/api/category", dependencies=CHANGES)
def category(asked: CategoryRequest, view: View) -> Done:
    """Choose what every frame is judged as."""
    choice = view.category
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


@common.post("/api/login")
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


@common.post("/api/logout")
def logout(response: Response, page: Page) -> Done:
    """Forget the cookie."""
    response.delete_cookie(page.cookie, httponly=True, samesite="strict")
    return Done()


@common.get("/healthz", include_in_schema=False)
async def healthz(request: Request, response: Response, page: Page) -> Health:
    """For a monitor: 200 while frames (without a line: images) are judged, else 503.

    Reasons are for those who may read.
    """
    health = await to_thread.run_sync(page.working, limiter=page.for_health)
    response.status_code = 200 if health.working else 503
    return health if request.state.may_read else replace(health, failing=(), degraded=())


@common.get("/metrics", include_in_schema=False)
def metrics(page: Page) -> Response:
    """For Prometheus."""
    content = b""
    if page.view is not None:
        if page.view.metrics is None:
            raise Refused(404, "no metrics are kept.", "serve the page with hvq-edge stream --page")
        content = page.view.metrics(page.view.statistics())
    if page.judge is not None:
        content += render_judge(page.judge)
    if page.connections is not None:
        content += render_page(page.connections)
    return Response(content, media_type=CONTENT_TYPE)


def _in_force(view: PageView, category: str) -> float:
    thresholds = view.controls.thresholds
    if category not in thresholds:
        known = ", ".join(thresholds)
        remedy = f"name one of {known}" if known else "run hvq-edge calibrate on the bundle first"
        raise Refused(404, f"{category!r} has no threshold.", remedy)
    return thresholds[category]


REFUSALS = (Refused, HvqEdgeError, RequestValidationError, HTTPException)


async def answer_refusal(_request: Request, error: Exception) -> Response:
    """Answer one of :data:`REFUSALS`.

    422 for what was asked, 409 for what another process is in the way of, 507 for what cannot be
    written.
    """
    match error:
        case Refused():
            return error.answer
        case SettingsError():
            return refuse(422, error.cause, error.next_step)
        case LogTaken() | LogLocked():
            return refuse(409, error.cause, error.next_step)
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
