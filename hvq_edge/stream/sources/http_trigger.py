"""A trigger by HTTP: ``POST /trigger``, answered with the decision."""

from __future__ import annotations

import json
import queue
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hvq_edge.errors import MissingCapability
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision

HOST = "127.0.0.1"
ANSWER_SECONDS = 2.0
"""A request waits this long for its decision; after that it gets the frame's number alone."""
_MOST_WAITING = 64
"""Triggers that wait for the camera; more are refused, so that a caller learns of it."""


class _Request:
    """One trigger on its way: who asked waits for :attr:`done`."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.first: int | None = None
        self.decisions: list[Decision] = []
        self.done = threading.Event()

    def answer(self) -> tuple[HTTPStatus, dict[str, Any]]:
        body = {"frame": self.first, "decisions": [one.fields() for one in self.decisions]}
        return (HTTPStatus.OK if self.done.is_set() else HTTPStatus.ACCEPTED), body


class HttpTrigger:
    """Listens on this machine only; a :class:`Trigger`, and a sink that must see the decisions.

    ``POST /trigger`` answers 200 with ``{"frame": 17, "decisions": [...]}``, the decisions being
    lines of ``decisions.jsonl``; 202 with what there is when they take longer than
    :data:`ANSWER_SECONDS` (``frame`` is ``null`` while the camera has not been asked yet); 503 when
    too many triggers wait.

    Args:
        port: to listen on; 0 takes a free one, see :attr:`port`.
        camera: name of the camera whose decisions are the answers.
        frames: for each trigger.
        seconds: that a request waits for its decisions.

    Raises:
        MissingCapability: the port is in use or may not be used.
    """

    def __init__(
        self, port: int, camera: str, *, frames: int = 1, seconds: float = ANSWER_SECONDS
    ) -> None:
        self._camera = camera
        self._frames = frames
        self._seconds = seconds
        self._lock = threading.Lock()
        self._asked: queue.Queue[_Request] = queue.Queue(_MOST_WAITING)
        self._last: _Request | None = None
        self._open: list[_Request] = []
        try:
            self._server = ThreadingHTTPServer((HOST, port), _handler_for(self))
        except OSError as error:
            raise MissingCapability(
                f"cannot listen for triggers on {HOST}:{port}: {error.strerror}.",
                next_step="choose another port with --trigger-port",
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="trigger", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """That it listens on."""
        return int(self._server.server_address[1])

    def request(self) -> tuple[HTTPStatus, dict[str, Any]]:
        """Trigger, and wait for the answer; what a POST does."""
        request = _Request(self._frames)
        try:
            self._asked.put_nowait(request)
        except queue.Full:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"fault": "too many triggers wait"}
        request.done.wait(self._seconds)
        with self._lock:
            return request.answer()

    def wait(self, seconds: float) -> bool:
        """Wait for a request."""
        try:
            self._last = self._asked.get(timeout=seconds)
        except queue.Empty:
            return False
        return True

    def answer(self, frame: int) -> None:
        """Note the first frame of the last request."""
        if self._last is None:
            return
        with self._lock:
            self._last.first = frame
            self._open.append(self._last)
            del self._open[:-_MOST_WAITING]  # of frames that were dropped no decision comes

    def write(self, decision: Decision, frame: Frame) -> None:  # noqa: ARG002  # of the protocol
        """Give a decision to the request that its frame was taken for."""
        if decision.camera != self._camera:
            return
        with self._lock:
            for request in self._open:
                first = request.first
                if first is not None and first <= decision.frame < first + request.frames:
                    request.decisions.append(decision)
                    if decision.frame == first + request.frames - 1:
                        self._open.remove(request)
                        request.done.set()
                    return

    def close(self) -> None:
        """Stop listening; requests under way get what there is."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)


def _handler_for(trigger: HttpTrigger) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5.0

        def do_POST(self) -> None:  # the name the library calls
            if self.path.partition("?")[0] != "/trigger":
                self._reply(HTTPStatus.NOT_FOUND, {"fault": "POST /trigger is all there is"})
                return
            self._reply(*trigger.request())

        def do_GET(self) -> None:
            self._reply(HTTPStatus.METHOD_NOT_ALLOWED, {"fault": "use POST /trigger"})

        def log_message(self, format: str, *args: object) -> None:
            """A request is no news."""

        def _reply(self, status: HTTPStatus, body: dict[str, Any]) -> None:
            content = json.dumps(body, ensure_ascii=False).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler
