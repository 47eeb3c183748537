"""The live page's server: its own thread with its own event loop, beside the inspector."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvq_edge.common.extras import needed
from hvq_edge.errors import SettingsError
from hvq_edge.stream.live_page.access import open_access
from hvq_edge.stream.live_page.health import HealthCheck
from hvq_edge.stream.live_page.judge import ImageJudge
from hvq_edge.stream.live_page.page_view import PageView
from hvq_edge.stream.live_page.settings import LivePageSettings
from hvq_edge.stream.sources.http_trigger import HttpTrigger

if TYPE_CHECKING:
    import uvicorn

    from hvq_edge.explain.explainer import Explainer
    from hvq_edge.stream.live_page.connections import Connections
    from hvq_edge.stream.review.desk import ReviewDesk

START_SECONDS = 10.0
STOP_SECONDS = 2.0
"""How long answers under way may take at the end."""


@dataclass(frozen=True)
class Serving:
    """A live page that is being served."""

    url: str
    port: int
    token: str
    """Made for this run; empty where a token file is used."""

    @property
    def token_url(self) -> str:
        """With which a browser is logged in. What follows ``#`` is never sent, so no log has it."""
        return f"{self.url}#token={self.token}" if self.token else self.url


@contextmanager
def serve(
    settings: LivePageSettings,
    view: PageView | None,
    *,
    health: HealthCheck | None = None,
    judge: ImageJudge | None = None,
    triggers: Mapping[str, HttpTrigger] | None = None,
    review: ReviewDesk | None = None,
    explainer: Explainer | None = None,
) -> Iterator[Serving]:
    """Serve the live page as long as the ``with`` block runs.

    Args:
        settings: where, and who may see it.
        view: the inspector; without one images are judged, and no more.
        health: judges snapshots for ``/healthz``.
        judge: judges the images of ``POST /predict``; closed by the caller.
        triggers: of cameras, by name, for ``POST /trigger``.
        review: where people judge decisions, at ``/review``.
        explainer: says why a decision scores what it scores.

    Raises:
        SettingsError: the address or the port cannot be used, or the token file is no good.
        MissingCapability: FastAPI or another package of the extra ``factory`` is not installed.
    """
    with needed("the live page"):
        import uvicorn

        from hvq_edge.stream.live_page.api import Served
        from hvq_edge.stream.live_page.app import make_app
        from hvq_edge.stream.live_page.connections import BACKLOG, Connections
    access, made = open_access(settings)
    listening = _listen(settings)
    port = int(listening.getsockname()[1])
    connections = Connections()
    served = Served(
        view,
        access,
        f"hvq_edge_{port}",
        health or HealthCheck(),
        settings.frames_per_second,
        connections,
        judge=judge,
        review=review,
        explainer=explainer,
        language=settings.language,
        triggers={name: trigger.request for name, trigger in (triggers or {}).items()},
    )
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(served),
            http=connections.protocol(),
            backlog=BACKLOG,
            log_config=None,  # the terminal belongs to the inspector
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(
        target=_run, args=(server, listening, connections), name="live page", daemon=True
    )
    thread.start()
    try:
        _wait_until_started(server, thread)
        yield Serving(_url(settings.host, port), port, made)
    finally:
        server.should_exit = True
        thread.join(STOP_SECONDS)
        listening.close()


def _run(server: uvicorn.Server, listening: socket.socket, connections: Connections) -> None:
    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(connections.fault)
        await server.serve([listening])

    asyncio.run(run())


def _listen(settings: LivePageSettings) -> socket.socket:
    """Return a bound socket: a port in use is found before anything else is started."""
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(settings, error) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise _cannot_listen(settings, error) from error
    return listening


def _cannot_listen(settings: LivePageSettings, error: OSError) -> SettingsError:
    remedy = "choose another port with --page-port (port in [page]; serve: --port)"
    if error.errno in (errno.EACCES, errno.EPERM):
        remedy = "choose a port from 1024 on with --page-port (port in [page]; serve: --port)"
    elif error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        remedy = (
            "choose an address of this machine with --page-host (host in [page]; serve: --host)"
        )
    number = error.errno or 0  # getaddrinfo's own are below 0
    reason = os.strerror(number) if number > 0 else error.strerror
    return SettingsError(
        f"the live page cannot be served on {settings.host}, port {settings.port}: {reason}.",
        next_step=remedy,
    )


def _wait_until_started(server: object, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not getattr(server, "started", False):
        if not thread.is_alive() or time.monotonic() > deadline:
            raise SettingsError(
                "the live page's server did not start.",
                next_step="choose another port with --page-port (port in [page]; serve: --port)",
            )
        time.sleep(0.005)


def _url(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"
