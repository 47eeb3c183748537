"""The live page's server: its start, its end, and that no browser slows the inspector."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from helpers.live_line import Line
from helpers.patience import PATIENCE_SECONDS, Stopwatch, until

from hvq_edge.errors import SettingsError
from hvq_edge.stream.live_page import connections
from hvq_edge.stream.live_page.serve import STOP_SECONDS, Serving, serve
from hvq_edge.stream.live_page.settings import LivePageSettings

ANY_PORT = LivePageSettings(port=0)


def test_it_serves_as_long_as_the_block_runs():
    before = {thread.name for thread in threading.enumerate()}
    with serve(ANY_PORT, Line().view) as serving:
        assert httpx.get(serving.url).status_code == 200
        assert serving.token_url == f"{serving.url}#token={serving.token}"
        assert serving.url == f"http://127.0.0.1:{serving.port}/"
    assert {thread.name for thread in threading.enumerate()} - before <= {"AnyIO worker thread"}
    with pytest.raises(httpx.ConnectError):
        httpx.get(serving.url)
    again = LivePageSettings(port=serving.port)
    with serve(again, Line().view) as second:
        assert httpx.get(second.url).status_code == 200


def test_a_port_in_use_is_said_before_anything_starts():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        served = serve(LivePageSettings(port=port), Line().view)
        with (
            pytest.raises(SettingsError, match=f"{port}: Address already in use") as caught,
            served,
        ):
            pass
    assert caught.value.exit_code == 2
    assert "--page-port" in caught.value.next_step


def test_an_address_of_another_machine_is_said(tmp_path):
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    settings = LivePageSettings(host="192.0.2.1", port=0, token_file=token)
    served = serve(settings, Line().view)
    with pytest.raises(SettingsError, match="Cannot assign requested address") as caught, served:
        pass
    assert caught.value.next_step.startswith("choose an address of this machine with --page-host")


def test_browsers_that_do_not_read_slow_neither_the_inspector_nor_the_end():
    line = Line()
    line.see(0.9, side=1500)
    with ExitStack() as ends:
        serving = ends.enter_context(serve(ANY_PORT, line.view))
        stuck = [socket.create_connection(("127.0.0.1", serving.port)) for _ in range(12)]
        asked = f"GET /api/cameras/0/image.jpg HTTP/1.1\r\nHost: 127.0.0.1:{serving.port}\r\n\r\n"
        for connection in stuck:
            connection.sendall(asked.encode() * 20)
        slowest = 0.0
        with Stopwatch() as stopwatch:
            for i in range(200):
                began = time.perf_counter()
                line.see(0.2 if i % 10 else 0.9, side=300)
                slowest = max(slowest, time.perf_counter() - began)
        assert slowest / stopwatch.slowness < 0.25, "the page's work is not the inspector's"
        assert (
            httpx.get(f"{serving.url}api/state", timeout=PATIENCE_SECONDS).json()["counts"][
                "frames"
            ]
            == 201
        )
        stopwatch = ends.enter_context(Stopwatch())
    assert stopwatch.seconds < STOP_SECONDS + 0.5, stopwatch
    for connection in stuck:
        connection.close()


def test_a_monitor_may_ask_all_day():
    line = Line()
    with serve(ANY_PORT, line.view) as serving, httpx.Client(base_url=serving.url) as client:
        for i in range(50):
            line.see(0.1)
            answer = client.get(f"/api/decisions?after={i}").json()
            assert [one["sequence"] for one in answer["decisions"]] == [i + 1]


HEAD = b"POST /api/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"

IMAGE = b"GET /api/cameras/0/image.jpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def dialled(serving: Serving, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", serving.port), timeout=PATIENCE_SECONDS)
    connection.sendall(sent)
    return connection


def ended(connection: socket.socket) -> bytes:
    """What still comes until the server closes; a test that waits too long fails."""
    got = b""
    try:
        while part := connection.recv(65536):
            got += part
    except ConnectionResetError:
        pass
    return got


def refused(connection: socket.socket, more: bytes) -> bool:
    """Send more; return whether nobody is there to take it."""
    try:
        connection.sendall(more)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def sample(serving: Serving, name: str) -> float:
    text = httpx.get(f"{serving.url}metrics", timeout=PATIENCE_SECONDS).text
    return next(float(row.split()[-1]) for row in text.splitlines() if row.startswith(name))


def test_whoever_holds_connections_open_a_monitor_is_answered(monkeypatch):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 40)
    line = Line(metrics=lambda _: b"")
    line.see(0.1, side=1500)
    with ExitStack() as ends:
        serving = ends.enter_context(serve(ANY_PORT, line.view))
        before = descriptors()
        kinds = [HEAD, HEAD + b"Content-Length: 9\r\n\r\n", b"", IMAGE * 100]
        held = [ends.enter_context(dialled(serving, kinds[i // 70])) for i in range(250)]
        for _ in range(3):
            answer = httpx.get(f"{serving.url}healthz", timeout=PATIENCE_SECONDS)
            assert (answer.status_code, answer.json()["working"]) == (200, True)
        until(lambda: sample(serving, 'hvq_page_connections_closed_total{limit="place"}') >= 210)
        assert descriptors() <= before + len(held) + 41
        assert ended(held[0]) == b"", "the one that came first"


def test_a_request_in_drips_and_an_answer_that_nobody_reads_end(monkeypatch):
    monkeypatch.setattr(connections, "EXCHANGE_SECONDS", 0.3)
    line = Line(metrics=lambda _: b"")
    line.see(0.9, side=1500)
    with serve(ANY_PORT, line.view) as serving:
        with dialled(serving, HEAD) as drips:
            until(lambda: refused(drips, b"X-More: 1\r\n"))
        with dialled(serving, IMAGE * 200):
            until(lambda: sample(serving, 'hvq_page_connections_closed_total{limit="time"}') == 2)
        with dialled(serving, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") as idle:
            assert b'"working":true' in ended(idle)


@pytest.mark.parametrize(
    "length", [b"Content-Length: 5\r\n", b"", b"Content-Length: 400000000\r\n"]
)
@pytest.mark.parametrize("path", [b"/api/login", b"/api/logout", b"/nowhere"])
def test_a_body_without_end_ends_soon_and_fills_no_memory(length, path):
    chunk = b"10000\r\n" + b"A" * 0x10000 + b"\r\n"
    head = HEAD.replace(b"/api/login", path) + length
    head += b"\r\n" if b"4" in length else b"Transfer-Encoding: chunked\r\n\r\n"
    most = 32 << 20  # what is on its way in the kernel's buffers is a few megabytes
    sent = 0
    with serve(ANY_PORT, Line().view) as serving, dialled(serving, head) as connection:
        while sent < most and not refused(connection, chunk):
            sent += len(chunk)
        assert sent < most
        assert httpx.get(f"{serving.url}healthz", timeout=PATIENCE_SECONDS).is_success


def test_faults_are_counted_and_not_printed(capfd, caplog, monkeypatch):
    line = Line(metrics=lambda _: b"")
    with serve(ANY_PORT, line.view) as serving:
        for _ in range(5):
            with dialled(serving, b"this is no HTTP\r\n\r\n") as connection:
                assert ended(connection).startswith(b"HTTP/1.1 400")
        assert sample(serving, 'hvq_page_faults_total{kind="request"}') == 5
        monkeypatch.setattr(type(line.controls), "thresholds", property(lambda _: 1 / 0))
        for _ in range(3):
            assert httpx.get(f"{serving.url}api/state", timeout=PATIENCE_SECONDS).status_code == 500
        assert sample(serving, 'hvq_page_faults_total{kind="server"}') == 3
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "a fault of the live page, said once and counted in /metrics: "
        "ZeroDivisionError('division by zero')"
    ]
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_process_without_descriptors_says_so_once_and_answers_afterwards(caplog, capfd):
    line = Line(metrics=lambda _: b"")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as ends:
        serving = ends.enter_context(serve(ANY_PORT, line.view))
        waiting = [ends.enter_context(socket.socket()) for _ in range(20)]
        lowest = os.open(os.devnull, os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
        try:
            for one in waiting:
                one.connect(("127.0.0.1", serving.port))
            until(lambda: caplog.records, "the message")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert httpx.get(f"{serving.url}healthz", timeout=PATIENCE_SECONDS).is_success
        assert sample(serving, 'hvq_page_faults_total{kind="server"}') >= 1
    (said,) = [one.getMessage() for one in caplog.records]
    assert "Too many open files" in said
    assert "Traceback" not in "".join(capfd.readouterr())
