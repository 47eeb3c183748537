"""The HTTP trigger: its answers, serial numbers, and requests that trigger nothing."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from helpers.bright_parts import BrightnessEngine, bundle  # noqa: F401  # a fixture
from helpers.graphs import SIDE
from helpers.images import flat
from helpers.patience import PATIENCE_SECONDS, until
from helpers.sources import ListSource

from hvq_edge.errors import MissingCapability
from hvq_edge.stream.inspector import Inspector
from hvq_edge.stream.sources import http_trigger
from hvq_edge.stream.sources.http_trigger import HttpTrigger
from hvq_edge.stream.sources.trigger import TriggeredSource


def post(port, path="/trigger", method="POST", body=""):
    address, content = f"http://127.0.0.1:{port}{path}", body.encode("latin-1") or None
    request = urllib.request.Request(address, content, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_request_says_when_it_came_not_when_it_was_taken():
    with closing(HttpTrigger(0, "camera", seconds=0)) as trigger:
        before = time.monotonic()
        trigger.request("SN-1")
        after = time.monotonic()
        came = trigger.wait(PATIENCE_SECONDS)
        assert came is not None
        assert before <= came <= after


def test_http_trigger_answers_with_the_decisions(bundle):
    images = [flat(level, SIDE) for level in (200, 50, 50, 50)]
    trigger = HttpTrigger(0, ListSource.name, frames=2, seconds=PATIENCE_SECONDS)
    source = TriggeredSource(ListSource(images), trigger, frames=2)
    inspector = Inspector(BrightnessEngine(), bundle, source, sinks=[trigger])
    thread = threading.Thread(target=lambda: list(inspector), daemon=True)
    thread.start()
    assert post(trigger.port, "/other")[0] == 404
    assert post(trigger.port, method="GET")[0] == 405
    status, first = post(trigger.port)
    assert (status, first["frame"]) == (200, 0)
    assert [decision["verdict"] for decision in first["decisions"]] == ["reject", "pass"]
    status, second = post(trigger.port, "/trigger?part=SN-2")
    assert (status, second["frame"]) == (200, 2)
    assert [one["part"] for one in first["decisions"]] == [None, None]
    assert [one["part"] for one in second["decisions"]] == ["SN-2", "SN-2"]
    assert [decision["frame"] for decision in second["decisions"]] == [2, 3]
    inspector.stop()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert inspector.counts.frames == inspector.counts.decided == 4


@pytest.fixture
def trigger() -> Iterator[HttpTrigger]:
    with closing(HttpTrigger(0, "camera", seconds=0)) as opened:
        yield opened


@pytest.mark.parametrize(
    ("address", "body", "number"),
    [
        ("/trigger?part=SN%201", "", "SN 1"),
        ("/trigger", '{"part": "SN 1"}', "SN 1"),
        ("/trigger", '{"part": 17, "more": []}', "17"),
        ("/trigger", "part=SN+1&more=2", "SN 1"),
        ("/trigger", '{"part": "\\ud800 \\u0000"}', "\\ud800 \0"),
        ("/trigger?part=", '{"part": ""}', ""),
        ("/trigger", "anything", ""),
        ("/trigger", "\x00\xff=part", ""),
    ],
)
def test_a_serial_number_comes_with_the_request(address, body, number, trigger):
    assert post(trigger.port, address, body=body)[0] == 202
    assert trigger.wait(0)
    assert trigger.part() == number


@pytest.mark.parametrize(
    ("address", "body", "said"),
    [
        ("/trigger?part=1&part=2", "", "part is given twice"),
        ("/trigger?part=1", '{"part": "2"}', "part is given twice"),
        ("/trigger", '{"part": "1"', "the body is no JSON"),
        ("/trigger", '{"part": ["1"]}', "must be a text or a whole number"),
        ("/trigger", '{"part": true}', "must be a text or a whole number"),
        (f"/trigger?part={'9' * 201}", "", "at most 200 characters"),
    ],
)
def test_what_cannot_be_a_serial_number_triggers_nothing(address, body, said, trigger):
    status, answer = post(trigger.port, address, body=body)
    assert (status, said in answer["fault"]) == (400, True), answer
    assert not trigger.wait(0)


def test_http_trigger_when_the_decision_takes_too_long():
    trigger = HttpTrigger(0, "camera", seconds=0.05)
    try:
        assert post(trigger.port) == (202, {"frame": None, "decisions": []})
        assert trigger.wait(1)
        with pytest.raises(MissingCapability, match="cannot listen"):
            HttpTrigger(trigger.port, "camera")
    finally:
        trigger.close()
        trigger.close()


def test_too_many_triggers_are_refused(trigger):
    statuses = [trigger.request()[0] for _ in range(70)]
    assert statuses.count(503) == 70 - 64


@pytest.mark.parametrize(
    "headers",
    [
        "Host: evil.example:8700",
        "Host: 127.0.0.1\r\nHost: evil.example",
        "Host: 127.0.0.1/trigger?",
        "Host: 127.0.0.1:8700\r\nOrigin: http://evil.example",
        "Host: 127.0.0.1:8700\r\nOrigin: null",
        "Host: 127.0.0.1:8700\r\nOrigin: http://[",
        "Host: evil.example:8700\r\nOrigin: http://evil.example:8700",
        "Host: 127.0.0.1:8700\r\nSec-Fetch-Site: cross-site",
        "Host: 127.0.0.1\r\nOrigin: http://evil.example\r\nOrigin: http://127.0.0.1",
    ],
)
def test_a_page_of_another_site_triggers_nothing(headers, trigger):
    assert told(trigger.port, headers).split()[1] in (b"403", b"421")
    assert not trigger.wait(0)


@pytest.mark.parametrize("headers", ["Host: localhost:8700", "X-No-Host: HTTP/1.0 needs none"])
def test_a_program_of_this_machine_triggers(headers, trigger):
    assert told(trigger.port, headers).split()[1] == b"202"
    assert trigger.wait(0)


@pytest.mark.parametrize("cut", ["POST /trigger HTTP/1.1\r\n", "POST /trigger HTTP/1.1\r\nHo"])
def test_a_request_that_was_cut_off_triggers_nothing(cut, trigger):
    with socket.create_connection(("127.0.0.1", trigger.port)) as connection:
        connection.sendall(cut.encode())
        connection.shutdown(socket.SHUT_WR)
        assert connection.makefile("rb").read() == b""
    assert not trigger.wait(0)


@pytest.mark.parametrize(
    "rest",
    [
        "Content-Length: 50\r\n\r\nfrom 6",
        "Content-Length: 50\r\n\r\n",
        "Content-Length: -1\r\n\r\n",
        "Content-Length: many\r\n\r\n",
        "Content-Length: 99999999\r\n\r\n",
        "Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nfro",
        "broken line\r\nOrigin: http://evil.example\r\n\r\n",
    ],
)
def test_a_request_that_is_not_whole_triggers_nothing(rest):
    trigger = HttpTrigger(0, "camera", seconds=0)
    address = ("127.0.0.1", trigger.port)
    try:
        with socket.create_connection(address, timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(f"POST /trigger HTTP/1.0\r\nHost: 127.0.0.1\r\n{rest}".encode())
            connection.shutdown(socket.SHUT_WR)
            assert connection.makefile("rb").read().split()[1] == b"400"
        assert not trigger.wait(0)
        body = "Host: 127.0.0.1\r\nContent-Length: 4\r\n\r\nwhat"
        assert told(trigger.port, body).split()[1] == b"202"
        assert trigger.wait(0)
    finally:
        trigger.close()


def told(port: int, headers: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(f"POST /trigger HTTP/1.0\r\n{headers}\r\n\r\n".encode())
        return connection.makefile("rb").read()


def test_whoever_holds_connections_open_a_trigger_is_heard(monkeypatch, capfd):
    monkeypatch.setattr(http_trigger, "_MOST_CONNECTIONS", 20)
    trigger = HttpTrigger(0, "camera", seconds=0)
    before = threading.active_count()
    with ExitStack() as ends:
        ends.callback(trigger.close)
        for _ in range(100):
            held = socket.create_connection(("127.0.0.1", trigger.port), timeout=PATIENCE_SECONDS)
            ends.enter_context(held).sendall(b"POST /trigger HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        assert post(trigger.port)[0] == 202
        assert [bool(trigger.wait(0)) for _ in range(2)] == [True, False]
        until(lambda: threading.active_count() <= before + 21, "the threads' end")
    assert capfd.readouterr().err == ""


def test_a_request_in_drips_ends(monkeypatch):
    monkeypatch.setattr(http_trigger, "_REQUEST_SECONDS", 0.2)
    trigger = HttpTrigger(0, "camera", seconds=0)

    def refused() -> bool:
        try:
            drips.sendall(b"X-More: 1\r\n")
        except OSError:
            return True
        return False

    with socket.create_connection(("127.0.0.1", trigger.port)) as drips:
        try:
            drips.sendall(b"POST /trigger HTTP/1.1\r\n")
            until(refused, pause=0.05)
        finally:
            trigger.close()
