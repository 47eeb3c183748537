"""Whom the API refuses: who has no token, another site, a body that is too large."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from helpers.live_api import API, CHANGES, line  # noqa: F401  # a fixture
from helpers.live_line import BEARER, TOKEN


@pytest.mark.parametrize(("path", "content"), CHANGES)
def test_a_change_needs_the_token_even_on_loopback(line, path, content):
    client = line.client()
    for headers in (
        {},
        {"authorization": "Bearer wrong-token-of-the-same-length-"},
        {"authorization": f"Basic {TOKEN}"},
        {"cookie": f"hvq_edge={TOKEN}"},
        {"cookie": "hvq_edge=" + "0" * 64},
    ):
        assert client.post(path, json=content, headers=headers).status_code == 401
    assert client.get(path).status_code == 405
    assert (line.controls.paused, line.chosen) == (False, "bolt")
    assert line.controls.thresholds["bolt"] == 0.5


def test_a_login_gives_a_cookie_that_no_script_reads_and_no_other_site_sends(line):
    client = line.client(reading_is_open=False)
    assert client.get("/").headers["location"] == "/login"
    assert client.get("/login").status_code == 200
    assert client.post("/api/login", json={"token": "wrong"}).status_code == 401
    answer = client.post("/api/login", json={"token": TOKEN})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert client.get("/").status_code == 200
    assert client.post("/api/pause", json={"paused": True}).is_success
    assert client.post("/api/logout", json={}).is_success
    assert client.get("/api/state").status_code == 401


@pytest.mark.parametrize("other", ['prefs={"theme":"dark"}', "name=Jürgen", "a=b=c", "lone", "=;;"])
def test_another_program_s_cookie_does_not_end_a_login(line, other):
    """Cookies are a host's, whatever the port."""
    client = line.client(reading_is_open=False)
    session = client.post("/api/login", json={"token": TOKEN}).headers["set-cookie"].split(";")[0]
    for sent, status in ((f"{other}; {session}", 200), (f"{other}; {session}0", 401)):
        client.cookies.clear()
        headers = {"cookie": sent.encode()}
        assert client.get("/api/state", headers=headers).status_code == status


def test_behind_a_proxy_with_tls_the_cookie_is_for_tls_alone(line):
    headers = {"x-forwarded-proto": "https"}
    answer = line.client().post("/api/login", json={"token": TOKEN}, headers=headers)
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize(("path", "content"), CHANGES)
def test_another_site_cannot_use_the_login(line, path, content):
    client = line.client(**BEARER)
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
    ):
        assert client.post(path, json=content, headers=headers).status_code == 403
    as_form = {"content-type": "text/plain"}
    answer = client.post(path, content=json.dumps(content), headers=as_form)
    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["next_step"]
    assert not line.controls.paused


def test_a_name_of_another_site_that_points_here_reads_nothing(line):
    client = line.client(**BEARER)
    assert client.get("/api/state", headers={"host": "evil.example"}).status_code == 421
    assert client.get("/healthz", headers={"host": "evil.example"}).status_code == 421
    assert client.get("/api/state", headers={"host": "factory.example"}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1/login?", "127.0.0.1/page/", "127.0.0.1/healthz#"])
def test_a_host_that_names_an_open_path_opens_no_other(line, host):
    """As Starlette 1.0.0 let it: there the Host header had a part in the path."""
    client = line.client(reading_is_open=False)
    answer = client.get("/api/state", headers={"host": host})
    assert answer.status_code == 421
    assert "counts" not in answer.text


def test_a_large_body_is_refused_before_it_is_read(line):
    content = {"category": "x" * 20000, "value": 1.0}
    answer = line.client(**BEARER).post("/api/threshold", json=content)
    assert answer.status_code == 413


def test_a_body_that_says_no_length_may_be_as_long_as_others(line):
    def pieces(size: int) -> Iterator[bytes]:
        yield b'{"category": "bolt", "value": 0.25'
        for _ in range(size // 100):
            yield b" " * 100
        yield b"}"

    client = line.client(**BEARER, **{"content-type": "application/json"})
    assert client.post("/api/threshold", content=pieces(20_000)).status_code == 413
    assert line.controls.thresholds["bolt"] == 0.5
    assert client.post("/api/threshold", content=pieces(10_000)).status_code == 200
    assert line.controls.thresholds["bolt"] == 0.25


PATHS = [route.path for route in API if "GET" in route.methods]


@pytest.mark.parametrize("path", [*PATHS, "/openapi.json", "/metrics"])
def test_where_reading_needs_the_token_nothing_is_read_without(line, path):
    path = path.replace("{index}", "0").replace("{sequence}", "2")
    client = line.client(reading_is_open=False)
    assert client.get(path).status_code == 401
    assert client.head(path).status_code == 401


def test_every_answer_has_the_headers_that_keep_the_page_to_itself(line):
    client = line.client()
    for path in ("/", "/page/main.js", "/api/state", "/healthz", "/nowhere"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] in ("no-store", "no-cache")
