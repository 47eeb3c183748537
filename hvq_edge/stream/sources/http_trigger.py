"""A trigger by HTTP: ``POST /trigger``, answered with the decision."""

from __future__ import annotations

import json
import queue
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader
from socket import SHUT_RDWR, socket
from typing import Any
from urllib.parse import parse_qs

from hvq_edge.errors import MissingCapability
from hvq_edge.stream.same_site import is_host, is_same_origin
from hvq_edge.stream.sources.source import MOST_CHARACTERS, Frame, part_number
from hvq_edge.verdict.decision import Decision

HOST = "127.0.0.1"
ANSWER_SECONDS = 2.0
"""A request waits this long for its decision; after that it gets the frame's number alone."""
_MOST_WAITING = 64
"""Triggers that wait for the camera; more are refused, so that a caller learns of it."""
_MOST_CONNECTIONS = 2 * _MOST_WAITING
"""Each has a thread. One more takes the place of the one that has sent no request for longest."""
_LARGEST_BODY = 16 * 1024
_ASKS_WHO = ("origin", "sec-fetch-site")
_REQUEST_SECONDS = 5.0
"""A connection that has sent no whole request by then is closed."""


class _Request:
    """One trigger on its way: who asked waits for :attr:`done`."""

    def __init__(self, frames: int, part: str) -> None:
        self.frames = frames
        self.part = part
        self.came = time.monotonic()
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
    too many triggers wait. A page of another site, open in a browser on this machine, is refused.

    The part's serial number may stand in the address, ``/trigger?part=17``, or in the body, as JSON
    ``{"part": "17"}`` or as a form's ``part=17``.

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
        self.camera = camera
        self._frames = frames
        self._seconds = seconds
        self._lock = threading.Lock()
        self._asked: queue.Queue[_Request] = queue.Queue(_MOST_WAITING)
        self._last: _Request | None = None
        self._open: list[_Request] = []
        try:
            self._server = _Server((HOST, port), _handler_for(self))
        except OSError as error:
            raise MissingCapability(
                f"cannot listen for triggers on {HOST}:{port}: {error.strerror}.",
                next_step="choose another port with --trigger-port",
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="trigger", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """That it listens on."""
        return int(self._server.server_address[1])

    def request(self, part: str = "") -> tuple[HTTPStatus, dict[str, Any]]:
        """Trigger, and wait for the answer; what a POST does.

        Args:
            part: serial number of the part, if it is known.
        """
        request = _Request(self._frames, part)
        try:
            self._asked.put_nowait(request)
        except queue.Full:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"fault": "too many triggers wait"}
        request.done.wait(self._seconds)
        with self._lock:
            return request.answer()

    def wait(self, seconds: float) -> float | None:
        """Wait for a request."""
        try:
            self._last = self._asked.get(timeout=seconds)
        except queue.Empty:
            return None
        return self._last.came

    def answer(self, frame: int) -> None:
        """Note the first frame of the last request."""
        if self._last is None:
            return
        with self._lock:
            self._last.first = frame
            self._open.append(self._last)
            del self._open[:-_MOST_WAITING]  # of frames that were dropped no decision comes

    def part(self) -> str:
        """Return the serial number that came with the last request."""
        return self._last.part if self._last is not None else ""

    def write(self, decision: Decision, frame: Frame) -> None:  # noqa: ARG002  # of the protocol
        """Give a decision to the request that its frame was taken for."""
        if decision.camera != self.camera:
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


class _Server(ThreadingHTTPServer):
    """The library's server, with limits for those who connect and send no request."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._lock = threading.Lock()
        self._silent: dict[socket, float] = {}
        """Connections without a whole request, and when they came, oldest first."""
        self._asking: set[socket] = set()
        super().__init__(address, handler)

    def get_request(self) -> tuple[socket, Any]:
        try:
            return super().get_request()
        except OSError:  # no descriptor is left; without a rest this would be asked in a tight loop
            time.sleep(0.1)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # typeshed's
        with self._lock:
            self._silent[request] = time.monotonic()
            if len(self._silent) + len(self._asking) > _MOST_CONNECTIONS:
                self._put_out(next(iter(self._silent)))
        super().process_request(request, client_address)

    def asks(self, request: socket) -> None:
        """Note that the whole request is there: its answer may take time."""
        with self._lock:
            if self._silent.pop(request, None) is not None:
                self._asking.add(request)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401  # typeshed's
        with self._lock:
            self._silent.pop(request, None)
            self._asking.discard(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Put out who is late; called by ``serve_forever`` all the time."""
        with self._lock:
            due = time.monotonic() - _REQUEST_SECONDS
            for request in [one for one, came in self._silent.items() if came < due]:
                self._put_out(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # typeshed's
        """Print nothing: who asked has gone, and that is no fault of the line."""

    def _put_out(self, request: socket) -> None:
        del self._silent[request]
        with suppress(OSError):  # it has gone already
            request.shutdown(SHUT_RDWR)  # wakes its thread, which closes it


class _Lines(BufferedReader):
    """Remembers the last line: the library takes the end of a connection for the end of a head."""

    last = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        self.last = super().readline(size)
        return self.last


def _handler_for(trigger: HttpTrigger) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server: _Server
        rfile: _Lines
        timeout = _REQUEST_SECONDS

        def setup(self) -> None:
            super().setup()
            self.rfile = _Lines(self.rfile.detach())

        def parse_request(self) -> bool:
            return super().parse_request() and self.rfile.last in (b"\r\n", b"\n")

        def do_POST(self) -> None:  # the name the library calls
            headers = {name.lower(): value for name, value in self.headers.items()}
            hosts = self.headers.get_all("host", [])  # none: a controller that speaks HTTP/1.0
            if len(hosts) > 1 or not all(map(is_host, hosts)):
                self._reply(HTTPStatus.MISDIRECTED_REQUEST, {"fault": f"this is {HOST}"})
                return
            twice = any(len(self.headers.get_all(one, [])) > 1 for one in _ASKS_WHO)
            if twice or not is_same_origin(headers):
                self._reply(HTTPStatus.FORBIDDEN, {"fault": "the request is another site's"})
                return
            if self.path.partition("?")[0] != "/trigger":
                self._reply(HTTPStatus.NOT_FOUND, {"fault": "POST /trigger is all there is"})
                return
            body = self._body()
            if body is None:
                self._reply(HTTPStatus.BAD_REQUEST, {"fault": "the request is not whole"})
                return
            self.server.asks(self.connection)
            try:
                part = _part_of(self.path.partition("?")[2], body)
            except ValueError as error:
                self._reply(HTTPStatus.BAD_REQUEST, {"fault": str(error)})
                return
            self._reply(*trigger.request(part))

        def _body(self) -> bytes | None:
            """Read the body; ``None``: it is cut off, and then the request triggers nothing."""
            lengths = self.headers.get_all("content-length", [])
            if self.headers.defects or "transfer-encoding" in self.headers or len(lengths) > 1:
                return None
            length = lengths[0].strip() if lengths else "0"
            if not length.isdecimal() or int(length) > _LARGEST_BODY:
                return None
            body = self.rfile.read(int(length))
            return body if len(body) == int(length) else None

        def do_GET(self) -> None:
            self.server.asks(self.connection)
            self._reply(HTTPStatus.METHOD_NOT_ALLOWED, {"fault": "use POST /trigger"})

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name there
            """A request is no news."""

        def _reply(self, status: HTTPStatus, body: dict[str, Any]) -> None:
            content = json.dumps(body, ensure_ascii=False).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler


def _part_of(query: str, body: bytes) -> str:
    """Return the serial number that a request names; empty: it names none.

    A body that is neither JSON nor a form says nothing, as a controller may send anything.

    Raises:
        ValueError: it cannot be one, or the request names two.
    """
    text = body.decode("utf-8", "backslashreplace").strip()
    given: list[Any] = parse_qs(query).get("part", [])
    if text.startswith("{"):
        try:
            named = json.loads(text).get("part")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the body is no JSON: {error}") from error
        given += [] if named is None else [named]
    else:
        given += parse_qs(text).get("part", [])
    if len(given) > 1:
        raise ValueError("part is given twice")
    part = given[0] if given else ""
    if isinstance(part, bool) or not isinstance(part, (str, int)):
        raise ValueError("part: must be a text or a whole number")
    number = part_number(str(part))
    if str(part).strip() and not number:
        raise ValueError(f"part: must have at most {MOST_CHARACTERS} characters")
    return number
