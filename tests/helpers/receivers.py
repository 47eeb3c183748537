"""Receivers of decisions on the network, which hang, die and come back; and a log behind them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import uuid
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from helpers.decisions import made
from helpers.patience import PATIENCE_SECONDS, until
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from hvq_edge.stream.log.decision_log import DecisionLog, LogOptions, Session
from hvq_edge.stream.sinks.network.delivery import Delivery
from hvq_edge.stream.sinks.threads import SinkThread
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision

OPTIONS = LogOptions(commit_seconds=0.0, reserve_bytes=0)
VERDICTS = ("pass", "reject", "no_decision")


class HttpReceiver:
    """Takes, hangs or answers with a fault, as it is told."""

    def __init__(self) -> None:
        self.taken: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.mode = "take"
        self.release = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.headers.append(dict(self.headers))
                if receiver.mode == "hang":
                    receiver.release.wait()
                    return
                refused = [
                    event for event in content["decisions"] if event["frame"] == receiver.mode
                ]
                status = 422 if refused else receiver.mode if receiver.mode == 503 else 200
                if status == 200:
                    receiver.taken += content["decisions"]
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/decisions?key=secret"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def http():
    receiver = HttpReceiver()
    yield receiver
    receiver.close()


def named(number: int, verdict: str) -> tuple[Decision, Frame]:
    """A decision on a frame of a film and a part with a serial number."""
    decision, frame = made(number, verdict, f"film.mp4#{number}")
    return replace(decision, part=f"SN-{number}"), frame


class Line:
    """An inspector's log with one receiver behind it."""

    def __init__(self, folder, receiver, **options) -> None:
        self.log = DecisionLog(folder / "decisions.sqlite", Session(), OPTIONS)
        self.faults: list[tuple[str, str]] = []
        self.delivery = Delivery(
            self.log.path,
            self.log.log_id,
            "webhook",
            receiver,
            report=lambda *said: self.faults.append(said),
            longest_wait=0.05,
            **{"verdicts": ("reject",), **options},
        )
        self.log.on_commit = self.delivery.committed
        self.thread = SinkThread(self.log, "log", "wait", 16)
        self.delivery.start()

    def write(self, frames: range, verdict: str = "reject") -> None:
        for number in frames:
            self.thread.write(*named(number, verdict))
        until(lambda: not self.thread.statistics().waiting)

    def close(self) -> None:
        self.thread.close()
        self.delivery.close(5.0)


def frames_of(events: list[dict]) -> list[int]:
    return [event["frame"] for event in events]


def names_of(events: list[dict]) -> set[tuple[str, str]]:
    return {(event["image"], event["part"]) for event in events}


MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """mosquitto, which may be stopped and started again.

    It remembers who has a session there: what is published before such a subscriber is back is
    kept for it.
    """

    def __init__(self, folder) -> None:
        self.port = free_port()
        self._settings = folder / "mosquitto.conf"
        self._settings.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
            f"persistence true\npersistence_location {folder}/\n"
            + ("user root\n" if os.geteuid() == 0 else "")
        )
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", self._settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._answers)

    def stop(self) -> None:
        self._process.terminate()  # kill -9 would lose the sessions, which are the test's, not ours
        self._process.wait()

    def forget(self) -> None:
        """Lose what it has kept, as a broker without a disk does; while it is stopped."""
        (self._settings.parent / "mosquitto.db").unlink(missing_ok=True)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Listener:
    """A subscriber to everything, with a session of its own at the broker."""

    def __init__(self, port: int) -> None:
        self.got: list[tuple[str, str, bool]] = []
        self.client = Client(
            CallbackAPIVersion.VERSION2, client_id=uuid.uuid4().hex, clean_session=False
        )
        self.client.reconnect_delay_set(1, 1)
        subscribed = threading.Event()
        self.client.on_connect = lambda *_: self.client.subscribe("#", qos=1)
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.on_message = lambda _client, _data, message: self.got.append(
            (message.topic, message.payload.decode(), message.retain)
        )
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert subscribed.wait(PATIENCE_SECONDS)

    def decisions(self) -> list[dict]:
        return [json.loads(text) for topic, text, _ in self.got if topic.endswith("/decision")]

    def availability(self) -> list[str]:
        return [text for topic, text, _ in self.got if topic == "hvq-edge/line_1/availability"]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
