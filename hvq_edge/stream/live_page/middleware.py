"""In front of every request of the live page: host, token, origin; and headers on every answer."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hvq_edge.stream.live_page.access import Access
from hvq_edge.stream.live_page.connections import LARGEST_IMAGE, PREDICT
from hvq_edge.stream.live_page.schemas import Refusal
from hvq_edge.stream.same_site import is_same_origin

LARGEST_BODY = 16 * 1024
"""Bytes: no request of the API comes near, but those that bring an image."""
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; frame-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_OPEN = {"/healthz", "/login", "/api/login", "/api/logout"}
REVIEW = "/review"
_PAGES = {"/", PREDICT, REVIEW}
_OPEN_FOLDER = "/page/"
"""The page's own files hold nothing of the line; the login form needs them."""


class Guard:
    """ASGI middleware.

    Args:
        app: what it guards.
        access: who may what.
        cookie: name of the cookie of a login.
    """

    def __init__(self, app: ASGIApp, access: Access, cookie: str) -> None:
        self._app = app
        self._access = access
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with ``request.state.known`` set."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        request = Request(scope)
        known = self._access.knows(request.headers, self._cookie)
        scope.setdefault("state", {})["known"] = known
        scope["state"]["may_read"] = known or self._access.reading_is_open
        refusal = self._refusal(request, known=known)
        if request.method == "HEAD":  # FastAPI's routes know none; the server leaves the body out
            scope = {**scope, "method": "GET"}
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, request: Request, *, known: bool) -> Response | None:
        """Return the answer to a request that goes no further."""
        path: str = request.scope["path"]  # what is routed; request.url is made of the Host header
        if not self._access.is_host(request.headers.get("host", "")):
            return refuse(
                421,
                "this is not a name of this machine.",
                "use its address, or name it with the live page's names",
            )
        if request.method not in ("GET", "HEAD"):
            if not is_same_origin(request.headers):
                return refuse(
                    403,
                    "the request comes from another site.",
                    "send it from the live page, or without the headers of a browser",
                )
            refusal = _unfit(request, path)
            if refusal is not None:
                return refusal
            if path not in _OPEN and not known:
                return refuse(401, "changes need the token.", "log in, or send it as Bearer")
        is_open = path in _OPEN or path.startswith(_OPEN_FOLDER)
        if known or is_open or self._access.reading_is_open:
            return None
        if path in _PAGES:
            return RedirectResponse("/login", 303)
        return refuse(401, "reading needs the token.", "log in, or send it as Bearer")


class BodyLimit:
    """ASGI middleware: ends the reading of a body at the limit of its path."""

    def __init__(self, app: ASGIApp) -> None:
        self._usual = RequestBodyLimitMiddleware(app, LARGEST_BODY)
        self._image = RequestBodyLimitMiddleware(app, LARGEST_IMAGE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        limit = self._image if scope.get("path") == PREDICT else self._usual
        await limit(scope, receive, send)


def _unfit(request: Request, path: str) -> Response | None:
    """Refuse what a form of another site can send as well, and what is too large."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # What it says of its length saves reading it; how long it is, Starlette counts.
    length = request.headers.get("content-length", "0")
    if path == PREDICT:
        is_image = kind.startswith("image/") or kind == "application/octet-stream"
        if not is_image:
            return refuse(
                415,
                "the request's content is not an image.",
                "send the image itself as the body, with the header Content-Type: image/png, or "
                "application/octet-stream for any format",
            )
        if not length.isdecimal() or int(length) > LARGEST_IMAGE:
            return refuse(
                413,
                f"an image may have up to {LARGEST_IMAGE >> 20} MiB here.",
                "send it smaller, or judge its file with hvq-edge predict",
            )
        return None
    if kind != "application/json":
        return refuse(
            415,
            "the request's content is not application/json.",
            "send JSON with the header Content-Type: application/json",
        )
    if not length.isdecimal() or int(length) > LARGEST_BODY:
        return refuse(
            413, f"a request may have up to {LARGEST_BODY} bytes.", "send less; see /openapi.json"
        )
    return None


def refuse(
    status: int, cause: str, next_step: str, retry_seconds: int | None = None
) -> JSONResponse:
    """Return a refusal; with the seconds after which another attempt may succeed, if any."""
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    if retry_seconds is not None:
        headers["retry-after"] = str(retry_seconds)
    content = Refusal(cause=cause, next_step=next_step).model_dump()
    return JSONResponse(content, status, headers)
