"""What one connection to the live page may take: time, bytes, and a place among the others.

uvicorn limits none of these: who opens connections and sends half a request would hold them for
ever, and with them the descriptors that cameras and the log need as well. It takes no token.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import h11
from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)

MOST_CONNECTIONS = 256
"""Far below the 1024 descriptors that a process may have open where nobody raised that."""
BACKLOG = 64
"""Connections that wait to be accepted, and that asyncio accepts at a time: with several times as
many places nobody is put out before the request he sent is read."""
EXCHANGE_SECONDS = 15.0
"""From the connection, or the end of the answer before, to the end of an answer."""
LARGEST_EXCHANGE = 64 * 1024
"""Bytes from a client in that time: head and body of a request are limited to 16 KiB each."""
PREDICT = "/predict"
"""The path whose requests bring an image; who may use it is decided before the body is read."""
LARGEST_IMAGE = 64 << 20
"""Bytes of such a body."""
IMAGE_SECONDS = 60.0
"""In place of :data:`EXCHANGE_SECONDS`: the image is sent, waits for others, and is judged."""
LIMITS = ("place", "time", "size")
FAULTS = ("request", "server")
_END_SECONDS = 0.5
"""What is under way may take so long when the server ends: less than uvicorn waits for it."""


class Connections:
    """The open connections of one server; used in its event loop only.

    One above :data:`MOST_CONNECTIONS` takes the place of the one whose exchange began first, be it
    half a request or an answer that nobody reads: so a monitor that asks is heard whoever else
    keeps connections open, and however.
    """

    def __init__(self) -> None:
        self.closed: Counter[str] = Counter()
        """By the limit that ended them, of :data:`LIMITS`."""
        self.faults: Counter[str] = Counter()
        """Of :data:`FAULTS`: ``request`` for what is no HTTP, ``server`` for the rest."""
        self.log = logging.Logger("live page")  # noqa: LOG001  # below no other: it never reaches the terminal
        """In uvicorn's place, whose log would go to the terminal."""
        self.log.addHandler(_Counting(self))
        self._open: dict[_Connection, None] = {}

    def protocol(self) -> type[H11Protocol]:
        """Return the class that uvicorn makes of each connection."""

        class Connection(_Connection):
            among = self

        return Connection

    def fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG002
        """Count what the event loop reports, above all that no descriptor is left."""
        error = context.get("exception")
        if not isinstance(error, ClientDisconnect):  # who hangs up is no fault of ours
            self.count_fault(error or context["message"])

    def count_fault(self, what: object) -> None:
        """Count a fault of the server, and say the first."""
        self.faults["server"] += 1
        if self.faults["server"] == 1:
            logger.warning("a fault of the live page, said once and counted in /metrics: %s", what)

    def begin(self, connection: _Connection) -> None:
        """Put a connection at the end of the row, and make room for it."""
        self._open.pop(connection, None)
        if len(self._open) >= MOST_CONNECTIONS:
            next(iter(self._open)).end("place")
        self._open[connection] = None

    def forget(self, connection: _Connection) -> bool:
        """Give a connection's place away; return whether it had one."""
        had = connection in self._open
        self._open.pop(connection, None)
        return had


class _Connection(H11Protocol):
    among: Connections

    def __init__(self, *given: Any, **named: Any) -> None:  # noqa: ANN401  # uvicorn's
        super().__init__(*given, **named)
        self.logger = self.among.log
        self._received = 0
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        brought_image = self._brings_image()
        if not self.transport.is_closing():
            super().data_received(data)
        if self._brings_image():
            most = 2 * LARGEST_IMAGE  # above it the answer is 413, and this ends who goes on
        else:
            most = LARGEST_EXCHANGE
            if brought_image:  # all of one that was refused has come
                self._received = 0
        if self._received > most:
            self.end("size")

    def handle_events(self) -> None:
        """Read what came; a request that brings an image gets more time."""
        before = self.scope
        super().handle_events()
        if self.scope is not before and self._brings_image():
            self._arm(IMAGE_SECONDS)

    def on_response_complete(self) -> None:
        if not self.transport.is_closing():
            self._begin()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.among.forget(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        super().shutdown()
        self.loop.call_later(_END_SECONDS, self.transport.abort)

    def end(self, limit: str) -> None:
        """Close at once: what was not sent is not worth waiting for."""
        if self.among.forget(self):
            self.among.closed[limit] += 1
            self._disarm()
            self.transport.abort()

    def _begin(self) -> None:
        self._received = 0
        self._arm(EXCHANGE_SECONDS)
        self.among.begin(self)

    def _brings_image(self) -> bool:
        """Whether the request under way does; also when it is refused already.

        Many senders read no answer before all is sent.
        """
        scope: Any = self.scope
        return (
            scope is not None
            and scope["path"] == PREDICT
            and self.conn.their_state in (h11.SEND_BODY, h11.DONE)
        )

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._limit = self.loop.call_later(seconds, self.end, "time")

    def _disarm(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None


class _Counting(logging.Handler):
    """Counts what uvicorn would log."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(logging.WARNING)
        self._connections = connections

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            error = record.exc_info[1] if record.exc_info else None
            self._connections.count_fault(repr(error) if error else record.getMessage())
        else:
            self._connections.faults["request"] += 1
