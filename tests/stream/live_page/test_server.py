"""The live page's server: its start, its end, and that no browser slows the inspector."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack

import httpx
import pytest
from helpers.live_line import Line
from helpers.patience import PATIENCE_SECONDS, Stopwatch

from hvq_edge.errors import SettingsError
from hvq_edge.stream.live_page.serve import STOP_SECONDS, serve
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
