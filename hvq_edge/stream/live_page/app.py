"""The web application: the page's files, the API, and what machines ask for."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from hvq_edge.errors import HvqEdgeError
from hvq_edge.stream.live_page.access import Access
from hvq_edge.stream.live_page.api import Answer, Api, refused
from hvq_edge.stream.live_page.guard import Guard
from hvq_edge.stream.live_page.health import HealthCheck
from hvq_edge.stream.live_page.operations import OPERATIONS, openapi
from hvq_edge.stream.live_page.watched import Watched

FILES = Path(__file__).with_name("page")


def make_app(
    watched: Watched,
    access: Access,
    *,
    cookie: str = "hvq_edge",
    health: HealthCheck | None = None,
    images_per_second: float = 10.0,
) -> Starlette:
    """Return the ASGI application.

    Args:
        watched: the inspector.
        access: who may what.
        cookie: name of the cookie of a login: cookies do not tell ports apart, names do.
        health: judges snapshots.
        images_per_second: a browser is told to ask for no more.
    """
    api = Api(watched, access, cookie, health or HealthCheck(), images_per_second)
    document = openapi(version("hvq-edge"))

    async def described(_request: Request) -> Response:
        return JSONResponse(document)

    def file(name: str) -> Answer:
        async def send(_request: Request) -> Response:
            return FileResponse(FILES / name, headers={"cache-control": "no-cache"})

        return send

    routes = [
        Route(operation.path, getattr(api, operation.name), methods=[operation.method])
        for operation in OPERATIONS
    ]
    return Starlette(
        routes=[
            *routes,
            Route("/", file("index.html")),
            Route("/login", file("login.html")),
            Route("/favicon.ico", file("icon.svg")),
            Route("/healthz", api.healthz),
            Route("/metrics", api.metrics),
            Route("/openapi.json", described),
            Mount("/page", StaticFiles(directory=FILES)),
        ],
        middleware=[Middleware(Guard, access=access, cookie=cookie)],
        exception_handlers={HvqEdgeError: refused},
    )
