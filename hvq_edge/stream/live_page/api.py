"""The functions that answer the API; :mod:`.operations` says which is where."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hvq_edge.errors import HvqEdgeError, SettingsError
from hvq_edge.stream.live_page import messages
from hvq_edge.stream.live_page.access import Access
from hvq_edge.stream.live_page.answers import decision_of, health_of, state_of
from hvq_edge.stream.live_page.guard import refuse
from hvq_edge.stream.live_page.health import HealthCheck
from hvq_edge.stream.live_page.preview import preview
from hvq_edge.stream.live_page.recent import Size
from hvq_edge.stream.live_page.watched import Watched

Answer = Callable[[Request], Awaitable[Response]]
Asked = TypeVar("Asked", bound=BaseModel)


class Api:
    """Answers of one run.

    Args:
        watched: the inspector.
        access: for logging in.
        cookie: name of the cookie of a login.
        health: judges snapshots.
        images_per_second: a browser is told to ask for no more.
    """

    def __init__(
        self,
        watched: Watched,
        access: Access,
        cookie: str,
        health: HealthCheck,
        images_per_second: float,
    ) -> None:
        self._watched = watched
        self._access = access
        self._cookie = cookie
        self._health = health
        self._images_per_second = images_per_second
        self._run = secrets.token_hex(8)

    async def state(self, request: Request) -> Response:
        """Everything but images."""
        statistics = self._watched.statistics()
        health = self._health(statistics)
        known: bool = request.state.known
        return _send(
            state_of(
                self._watched,
                statistics,
                health,
                run=self._run,
                may_change=known,
                images_per_second=self._images_per_second,
            )
        )

    async def decisions(self, request: Request) -> Response:
        """Recent decisions."""
        after = _whole_number(request.query_params.get("after", "0"))
        page = self._watched.page
        records = page.records(after)
        return _send(
            messages.DecisionsMessage(
                run=self._run,
                sequence=records[-1].sequence if records else page.sequence,
                decisions=tuple(decision_of(record) for record in records),
            )
        )

    async def rejects(self, _request: Request) -> Response:
        """The last rejects."""
        records = self._watched.page.rejects()
        return _send(
            messages.RejectsMessage(
                run=self._run, rejects=tuple(decision_of(record) for record in records)
            )
        )

    async def reject_image(self, request: Request) -> Response:
        """A reject's image."""
        sequence = _whole_number(request.path_params["sequence"])
        size: Size = "thumbnail" if request.query_params.get("size") == "thumbnail" else "view"
        heat = _heat(request)
        image = await run_in_threadpool(self._watched.page.reject_image, sequence, size, heat=heat)
        if image is None:
            return Response(status_code=204)  # newer ones took its place while it was asked for
        headers = {"cache-control": "private, max-age=3600"}
        return Response(image, media_type="image/jpeg", headers=headers)

    async def camera_image(self, request: Request) -> Response:
        """A camera's newest image."""
        index = _whole_number(request.path_params["index"])
        cameras = self._watched.statistics().cameras
        if index >= len(cameras):
            return refuse(
                404,
                f"there is no camera {index}.",
                f"cameras are numbered from 0, and there are {len(cameras)} (/api/state)",
            )
        name, heat = cameras[index].name, _heat(request)
        newest = self._watched.page.newest(name)
        if newest is None:
            return Response(status_code=204)  # an error would stand in the browser's console
        if request.headers.get("if-none-match") == self._tag(newest.record.sequence, heat):
            return Response(status_code=304)
        shown = await run_in_threadpool(self._watched.page.image, name, heat=heat)
        assert shown is not None, "a camera that gave a frame keeps one"
        record, image = shown
        decision = json.dumps(decision_of(record).model_dump())
        # The verdict beside the image is that of this image, however slow the network is.
        headers = {"etag": self._tag(record.sequence, heat), "x-decision": decision}
        headers["cache-control"] = "no-cache"
        if image is None:
            return Response(status_code=204, headers=headers)
        return Response(image, media_type="image/jpeg", headers=headers)

    async def preview(self, request: Request) -> Response:
        """What a threshold would have done to recent frames."""
        category = request.query_params.get("category", "")
        threshold = _number(request.query_params.get("threshold", ""))
        in_force = self._watched.controls.thresholds.get(category)
        if in_force is None:
            return self._without_threshold(category)
        found = preview(self._watched.page.records(), category, threshold, in_force)
        return _send(
            messages.PreviewMessage(
                category=category,
                threshold=threshold,
                in_force=in_force,
                frames=found.frames,
                would_reject=found.would_reject,
                rejects_now=found.rejects_now,
                lowest=found.lowest,
                highest=found.highest,
            )
        )

    async def pause(self, request: Request) -> Response:
        """Pause, or go on."""
        asked = await _body(request, messages.PauseRequest)
        self._watched.controls.paused = asked.paused
        return _send(messages.Done())

    async def threshold(self, request: Request) -> Response:
        """Put a threshold in force; save it first, so that a full disk changes nothing."""
        asked = await _body(request, messages.ThresholdRequest)
        if asked.category not in self._watched.controls.thresholds:
            return self._without_threshold(asked.category)
        if asked.save:
            save = self._watched.save_threshold
            if save is None:
                return refuse(409, "thresholds cannot be saved here.", "apply it without saving")
            await run_in_threadpool(save, asked.category, asked.value)
        self._watched.controls.set_threshold(asked.category, asked.value)
        return _send(messages.Done())

    async def category(self, request: Request) -> Response:
        """Choose what every frame is judged as."""
        asked = await _body(request, messages.CategoryRequest)
        choice = self._watched.category
        if choice is None:
            return refuse(
                409,
                "the model chooses the category itself.",
                "nothing is to be chosen; to choose it here, use a bundle that hvq-edge export "
                "--category input made",
            )
        if asked.category not in choice.names:
            return refuse(
                404,
                f"there is no category {asked.category!r}.",
                f"name one of {', '.join(choice.names)}",
            )
        await run_in_threadpool(choice.choose, asked.category)
        return _send(messages.Done())

    async def login(self, request: Request) -> Response:
        """Get a cookie for the token."""
        asked = await _body(request, messages.LoginRequest)
        if not self._access.is_token(asked.token.strip()):
            return refuse(401, "this is not the token.", "take it from the token file, or from "
                          "what the inspector printed when it started")  # fmt: skip
        answer = _send(messages.Done())
        answer.set_cookie(
            self._cookie,
            self._access.session,
            httponly=True,
            samesite="strict",
            secure=request.headers.get("x-forwarded-proto", request.url.scheme) == "https",
            max_age=30 * 24 * 3600,
        )
        return answer

    async def logout(self, _request: Request) -> Response:
        """Forget the cookie."""
        answer = _send(messages.Done())
        answer.delete_cookie(self._cookie, httponly=True, samesite="strict")
        return answer

    async def healthz(self, request: Request) -> Response:
        """For a monitor: 200 while frames are judged, else 503."""
        health = self._health(self._watched.statistics())
        content = health_of(health, reasons=request.state.may_read).model_dump()
        return JSONResponse(content, 200 if health.working else 503)

    async def metrics(self, _request: Request) -> Response:
        """For Prometheus."""
        if self._watched.metrics is None:
            return refuse(404, "no metrics are kept.", "serve the page with hvq-edge stream --page")
        text = await run_in_threadpool(self._watched.metrics, self._watched.statistics())
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    def _without_threshold(self, category: str) -> Response:
        known = ", ".join(self._watched.controls.thresholds)
        remedy = f"name one of {known}" if known else "run hvq-edge calibrate on the bundle first"
        return refuse(404, f"{category!r} has no threshold.", remedy)

    def _tag(self, sequence: int, heat: bool) -> str:
        return f'"{self._run}-{sequence}-{int(heat)}"'


def refused(_request: Request, error: Exception) -> Response:
    """Answer an error of ours: 422 for what was asked, 507 for what cannot be written."""
    assert isinstance(error, HvqEdgeError)
    return refuse(422 if isinstance(error, SettingsError) else 507, error.cause, error.next_step)


def _send(message: BaseModel) -> Response:
    return Response(message.model_dump_json(), media_type="application/json")


async def _body(request: Request, model: type[Asked]) -> Asked:
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'body'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise SettingsError(
            f"the request cannot be understood: {faults}.", next_step="see /openapi.json"
        ) from error


def _heat(request: Request) -> bool:
    return request.query_params.get("heat", "1") != "0"


def _whole_number(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise SettingsError(f"{text[:40]!r} is not a whole number.", next_step="see /openapi.json")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SettingsError(f"{text[:40]!r} is not a number.", next_step="see /openapi.json")
    return value
