"""What is too much for a page that judges images, or no image: it is refused and takes no place."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import httpx
import numpy as np
import pytest
from helpers.bright_parts import bundle  # noqa: F401  # a fixture
from helpers.image_judging import GOOD, PNG, SIDE, client, engine, judge, outcomes, png  # noqa: F401  # fixtures
from helpers.live_line import BEARER, TOKEN
from helpers.patience import PATIENCE_SECONDS, until

from hvq_edge.stream.live_page import connections, middleware
from hvq_edge.stream.live_page import judge as judge_module
from hvq_edge.stream.live_page.judge import PLACES, ImageJudge
from hvq_edge.stream.live_page.serve import Serving, serve
from hvq_edge.stream.live_page.settings import LivePageSettings


def header_of_a_huge_image() -> bytes:
    huge = bytearray(GOOD)
    huge[16:24] = (30_000).to_bytes(4, "big") * 2
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    return bytes(huge)


@pytest.mark.parametrize(
    ("content", "headers", "status", "said"),
    [
        (b"", PNG, 422, "brings no image"),
        (b"no image at all" * 9, PNG, 422, "not an image but text"),
        (GOOD[:400], PNG, 422, "cannot be used"),
        (header_of_a_huge_image(), PNG, 422, "30000x30000 pixels"),
        (GOOD, {}, 415, "not an image"),
        (GOOD, {"content-type": "multipart/form-data; boundary=x"}, 415, "not an image"),
        (GOOD, {"content-type": "text/plain"}, 415, "not an image"),
        (GOOD, {**PNG, "content-length": str((64 << 20) + 1)}, 413, "64 MiB"),
        (GOOD, {**PNG, "authorization": "Bearer wrong"}, 401, "token"),
        (GOOD, {**PNG, "origin": "http://evil.example"}, 403, "another site"),
        (GOOD, {**PNG, "sec-fetch-site": "cross-site"}, 403, "another site"),
        (GOOD, {**PNG, "host": "evil.example"}, 421, "not a name"),
    ],
)
def test_what_cannot_be_judged_is_refused_and_takes_no_place(
    judge, engine, content, headers, status, said
):
    asking = client(judge)
    for _ in range(PLACES + 1):
        answer = asking.post("/predict", content=content, headers={**BEARER, **headers})
        assert answer.status_code == status
        assert said in answer.json()["cause"]
        assert answer.json()["next_step"]
    assert engine.calls == 0
    assert asking.post("/predict", content=GOOD, headers={**BEARER, **PNG}).status_code == 200


def test_a_body_that_says_no_length_ends_at_the_same_limit(judge, monkeypatch):
    monkeypatch.setattr(middleware, "LARGEST_IMAGE", len(GOOD))

    def pieces(content: bytes) -> Iterator[bytes]:
        for i in range(0, len(content), 1000):
            yield content[i : i + 1000]

    asking = client(judge, **BEARER, **PNG)
    for _ in range(PLACES + 1):
        assert asking.post("/predict", content=pieces(GOOD + b"x")).status_code == 413
    assert asking.post("/predict", content=pieces(GOOD)).status_code == 200
    change = {"category": "x" * 20_000, "value": 1.0}  # other paths keep theirs
    headers = {"content-type": "application/json"}
    assert asking.post("/api/login", json=change, headers=headers).status_code == 413


@contextmanager
def serving(judge: ImageJudge, tmp_path) -> Iterator[Serving]:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    settings = LivePageSettings(port=0, token_file=token)
    with serve(settings, None, judge=judge) as made:
        yield made


def dialled(at: Serving, content: bytes) -> socket.socket:
    """A connection that has sent a whole request."""
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Content-Type: image/png\r\nContent-Length: {len(content)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", at.port), timeout=PATIENCE_SECONDS)
    connection.sendall(head.encode() + content)
    return connection


def test_a_few_may_wait_and_one_more_is_told_to_come_again(judge, engine, tmp_path):
    engine.free.clear()
    with serving(judge, tmp_path) as at, ThreadPoolExecutor(PLACES) as pool:

        def post() -> httpx.Response:
            headers = {**BEARER, **PNG}
            return httpx.post(
                f"{at.url}predict", content=GOOD, headers=headers, timeout=PATIENCE_SECONDS
            )

        waiting = [pool.submit(post) for _ in range(PLACES)]
        until(lambda: not judge._places._value, "all places are taken")
        refused = post()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert f"{PLACES} images" in refused.json()["cause"]
        healthy = httpx.get(f"{at.url}healthz", headers=BEARER, timeout=PATIENCE_SECONDS)
        assert healthy.json()["working"] is True
        engine.free.set()
        assert [one.result().json()["verdict"] for one in waiting] == ["pass"] * PLACES
        assert post().status_code == 200


def test_who_goes_away_leaves_the_place_to_others(judge, engine, tmp_path):
    engine.free.clear()
    with serving(judge, tmp_path) as at, ExitStack() as ends:
        gone = [ends.enter_context(dialled(at, GOOD)) for _ in range(PLACES)]
        until(lambda: judge._jobs.qsize() == PLACES - 1, "the engine has one, the others wait")
        for connection in gone:
            connection.close()
        until(lambda: outcomes(judge) == {"gone": PLACES - 1}, "while the engine still works")
        half = ends.enter_context(socket.create_connection(("127.0.0.1", at.port)))
        engine.free.set()
        until(lambda: outcomes(judge) == {"pass": 1, "gone": PLACES - 1})
        half.sendall(
            f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Content-Type: image/png\r\nContent-Length: 9999\r\n\r\nhalf".encode()
        )
        until(lambda: judge._places._value == PLACES - 1, "half a body has a place")
        half.close()
        until(lambda: outcomes(judge) == {"pass": 1, "gone": PLACES})
        assert judge._places._value == PLACES
        assert engine.calls == 1


def test_an_image_may_be_larger_than_other_bodies_and_a_refusal_reaches_its_sender(judge, tmp_path):
    noise = np.random.default_rng(0).integers(0, 100, (900, 900, 3)).astype(np.uint8)
    content = png(noise)
    assert len(content) > 20 * connections.LARGEST_EXCHANGE
    with serving(judge, tmp_path) as at, httpx.Client(timeout=PATIENCE_SECONDS) as asking:
        for _ in range(3):
            refused = asking.post(f"{at.url}predict", content=content, headers=PNG)
            assert refused.status_code == 401
            answer = asking.post(f"{at.url}predict", content=content, headers={**BEARER, **PNG})
            assert answer.json()["verdict"] == "pass"
        sample = asking.get(f"{at.url}metrics", headers=BEARER).text
    assert 'hvq_page_connections_closed_total{limit="size"} 0.0' in sample


@pytest.mark.parametrize("headers", [PNG, {**PNG, **BEARER}])
def test_an_image_without_end_ends(judge, tmp_path, monkeypatch, headers):
    monkeypatch.setattr(connections, "LARGEST_IMAGE", 1 << 20)
    monkeypatch.setattr(middleware, "LARGEST_IMAGE", 1 << 20)
    said = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n{said}Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"A" * 0x10000 + b"\r\n"
    most, sent = 32 << 20, 0
    with (
        serving(judge, tmp_path) as at,
        socket.create_connection(("127.0.0.1", at.port), timeout=PATIENCE_SECONDS) as connection,
    ):
        connection.sendall(head.encode())
        with suppress(BrokenPipeError, ConnectionResetError):
            while sent < most:
                connection.sendall(chunk)
                sent += len(chunk)
        assert sent < most
        assert httpx.get(f"{at.url}healthz", timeout=PATIENCE_SECONDS).is_success


def test_more_time_is_given_to_images_alone(judge, engine, tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "EXCHANGE_SECONDS", 0.2)
    engine.free.clear()
    with serving(judge, tmp_path) as at, dialled(at, GOOD) as waits:
        other = socket.create_connection(("127.0.0.1", at.port), timeout=PATIENCE_SECONDS)
        with other:
            other.sendall(b"POST /api/login HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            assert other.recv(1) == b"", "it had less than a second"
        engine.free.set()
        assert waits.recv(12) == b"HTTP/1.1 200"


def test_an_image_that_announces_very_many_pixels_is_not_decoded(judge, monkeypatch):
    monkeypatch.setattr(judge_module, "MOST_PIXELS", SIDE * SIDE - 1)
    monkeypatch.setattr(judge_module, "image_of", None)
    answer = client(judge, **BEARER, **PNG).post("/predict", content=GOOD)
    assert answer.status_code == 422
    assert f"{SIDE}x{SIDE} pixels" in answer.json()["cause"]
    assert "hvq-edge predict" in answer.json()["next_step"]
