"""In front of every request of the live page: host, token, origin; and headers on every answer."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hvq_edge.stream.live_page.access import Access
from hvq_edge.stream.live_page.schemas import Refusal
from hvq_edge.stream.same_site import is_same_origin

LARGEST_BODY = 16 * 1024
"""Bytes: no request of the API comes near."""
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_OPEN = {"/healthz", "/login", "/api/login", "/api/logout"}
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
                    headers[name] = value
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
            kind = request.headers.get("content-type", "").partition(";")[0].strip()
            if kind != "application/json":  # what a form of another site cannot send
                return refuse(
                    415,
                    "the request's content is not application/json.",
                    "send JSON with the header Content-Type: application/json",
                )
            # What it says of its length saves reading it; how long it is, Starlette counts.
            length = request.headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > LARGEST_BODY:
                return refuse(
                    413,
                    f"a request may have up to {LARGEST_BODY} bytes.",
                    "send less; see /openapi.json",
                )
            if path not in _OPEN and not known:
                return refuse(401, "changes need the token.", "log in, or send it as Bearer")
        is_open = path in _OPEN or path.startswith(_OPEN_FOLDER)
        if known or is_open or self._access.reading_is_open:
            return None
        if path == "/":
            return RedirectResponse("/login", 303)
        return refuse(401, "reading needs the token.", "log in, or send it as Bearer")


def refuse(status: int, cause: str, next_step: str) -> JSONResponse:
    """Return a refusal."""
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    content = Refusal(cause=cause, next_step=next_step).model_dump()
    return JSONResponse(content, status, headers)
