"""What the line talks to, and how it misbehaves: a webhook's receiver, a broker, a controller.

Each remembers what reached it, over all its restarts.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from helpers.receivers import Broker, Listener, free_port

PAUSE_SECONDS = 0.05
FLOOD_BYTES = 400 << 20
"""An endless answer ends after so many: what keeps them must not take the machine with it."""
CHUNK = bytes(1 << 16)


class Deliveries:
    """Events as they arrived, by id."""

    def __init__(self) -> None:
        self.first: dict[str, str] = {}
        """Content of each event when it came first, in the order of arrival."""
        self.repeated = 0
        self.changed: list[str] = []
        """Ids that came again with another content."""
        self._lock = threading.Lock()

    def take(self, events: list[dict[str, Any]]) -> None:
        """Remember events."""
        with self._lock:
            for event in events:
                content = json.dumps(event, sort_keys=True)
                if event["id"] not in self.first:
                    self.first[event["id"]] = content
                    continue
                self.repeated += 1
                if self.first[event["id"]] != content:
                    self.changed.append(event["id"])

    def missing(self, ids: set[str]) -> set[str]:
        """Return which ids never came."""
        with self._lock:
            return ids - self.first.keys()


class Webhook:
    """Takes batches, or does what its mode says."""

    def __init__(self) -> None:
        self.got = Deliveries()
        self.mode = "take"
        self.port = free_port()
        self._server: ThreadingHTTPServer | None = None
        self.listen()

    def listen(self) -> None:
        """Take connections."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with suppress(OSError):
                    receiver.answer(self, json.loads(body)["decisions"])

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        serving = threading.Thread(
            target=self._server.serve_forever, args=(PAUSE_SECONDS,), daemon=True
        )
        serving.start()

    def refuse(self) -> None:
        """Take no connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, handler: BaseHTTPRequestHandler, events: list[dict[str, Any]]) -> None:
        """Answer one batch."""
        match self.mode:
            case "hang":
                while self.mode == "hang":
                    time.sleep(PAUSE_SECONDS)
            case "drip" | "flood" as mode:  # a receiver that has it, and an answer without an end
                self.got.take(events)
                handler.send_response(200)
                handler.end_headers()
                sent = 0
                while self.mode == mode and sent < FLOOD_BYTES:
                    piece = CHUNK if mode == "flood" else b" "
                    handler.wfile.write(piece)
                    sent += len(piece)
                    if mode == "drip":
                        time.sleep(PAUSE_SECONDS)
            case "lose the answer":
                self.got.take(events)
            case "unavailable":
                self._end(handler, 503)
            case _:
                self.got.take(events)
                self._end(handler, 200)

    @staticmethod
    def _end(handler: BaseHTTPRequestHandler, status: int) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()


class FreezableBroker(Broker):
    """mosquitto, which may also be stopped in the middle of whatever it does."""

    def freeze(self) -> None:
        """Keep connections open and do nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        self._process.send_signal(signal.SIGCONT)


class Mqtt:
    """A broker with a subscriber whose session outlasts the broker's restarts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.broker = FreezableBroker(folder)
        self.got = Deliveries()
        self._listener = Listener(self.broker.port)
        self._read = 0

    def pump(self) -> None:
        """Take what the subscriber got meanwhile."""
        new = self._listener.got[self._read :]
        self._read += len(new)
        self.got.take([json.loads(text) for topic, text, _ in new if topic.endswith("/decision")])

    def close(self) -> None:
        """Stop both."""
        self._listener.close()
        self.broker.stop()


class Controller:
    """Modbus/TCP with coils that outlast everything: those of the machine on the line."""

    REJECT, HEARTBEAT = 0, 1

    def __init__(self) -> None:
        self.coils: dict[int, bool] = {}
        self.written: list[tuple[float, int, bool]] = []
        """Moment, coil, value."""
        self.mode = "take"
        self.port = free_port()
        self._listening: socket.socket | None = None
        self.listen()

    def listen(self) -> None:
        """Take connections."""
        self._listening = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def refuse(self) -> None:
        """Take no connections, and end those that are there."""
        if self._listening is None:
            return
        with suppress(OSError):  # wakes the thread that waits in accept
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._listening = None
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def listening(self) -> bool:
        """Whether it takes connections."""
        return self._listening is not None

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rb") as requests:
            while len(head := requests.read(7)) == 7:
                transaction, _, length, unit = struct.unpack(">HHHB", head)
                function, coil, value = struct.unpack(">BHH", requests.read(length - 1))
                if self.mode == "hang":
                    while self.mode == "hang":
                        time.sleep(PAUSE_SECONDS)
                    break
                if self.mode == "refuse the heartbeat" and coil == self.HEARTBEAT:
                    body = struct.pack(">BB", function | 0x80, 2)  # illegal address
                else:
                    self.coils[coil] = bool(value)
                    self.written.append((time.monotonic(), coil, bool(value)))
                    body = struct.pack(">BHH", function, coil, value)
                connection.sendall(struct.pack(">HHHB", transaction, 0, len(body) + 1, unit) + body)
        self._open.discard(connection)

    def values_since(self, moment: float, coil: int = REJECT) -> set[bool]:
        """Return what was written to a coil after a moment."""
        return {on for at, which, on in self.written if which == coil and at > moment}
