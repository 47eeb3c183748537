"""The API: what it gives, whom it refuses, and that its OpenAPI document tells the truth."""

from __future__ import annotations

import json
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from helpers.judged_images import rows
from helpers.live_line import BEARER, CAMERA, TOKEN, Line
from jsonschema import Draft202012Validator

from hvq_edge.bundle.judged_images import Labelled
from hvq_edge.errors import OutputError
from hvq_edge.stream.live_page import predict_api
from hvq_edge.stream.live_page.api import common, router
from hvq_edge.stream.statistics import SinkStatistics

CHANGES = [
    ("/api/pause", {"paused": True}),
    ("/api/threshold", {"category": "bolt", "value": 0.7}),
    ("/api/category", {"category": "nut"}),
]


@pytest.fixture
def line() -> Line:
    made = Line()
    for score in (0.1, 0.7, None):
        made.see(score)
    return made


def test_the_state_fits_together(line):
    state = line.client().get("/api/state").json()
    assert state["counts"] == {
        "frames": 3,
        "passed": 1,
        "rejected": 1,
        "no_decision": 1,
        "dropped": 0,
    }
    (camera,) = state["cameras"]
    assert (camera["name"], camera["newest"]["verdict"]) == (CAMERA, "no_decision")
    assert state["stages"][0]["p99"] == pytest.approx(4.0, rel=0.01)
    assert state["stages"][1]["p50"] is None
    assert state["thresholds"][0] == {"category": "bolt", "value": 0.5}
    assert state["may_change"] is False
    assert line.client(**BEARER).get("/api/state").json()["may_change"] is True


def test_decisions_since_the_last_ones(line):
    client = line.client()
    everything = client.get("/api/decisions").json()
    assert [one["sequence"] for one in everything["decisions"]] == [1, 2, 3]
    later = client.get("/api/decisions?after=2").json()
    assert [one["sequence"] for one in later["decisions"]] == [3]
    assert (later["run"], later["sequence"]) == (everything["run"], 3)
    assert client.get("/api/decisions?after=3").json()["decisions"] == []
    line.see(0.1, name="a \udcff.png", part="SN-1")
    (found,) = client.get("/api/decisions?part=SN-1").json()["decisions"]
    assert (found["sequence"], found["part"], found["image"]) == (4, "SN-1", "a \\udcff.png")
    assert client.get("/api/decisions?after=4&part=SN-1").json()["decisions"] == []
    assert client.get("/api/decisions?after=x").status_code == 422


def test_an_image_brings_its_own_verdict(line):
    client = line.client()
    line.see(0.8)
    answer = client.get("/api/cameras/0/image.jpg")
    assert json.loads(answer.headers["x-decision"])["score"] == 0.8
    assert cv2.imdecode(np.frombuffer(answer.content, np.uint8), 1).shape == (64, 64, 3)
    tag = {"if-none-match": answer.headers["etag"]}
    assert client.get("/api/cameras/0/image.jpg", headers=tag).status_code == 304
    plain = client.get("/api/cameras/0/image.jpg?heat=0", headers=tag)
    assert plain.status_code == 200, "the heat map was switched off"
    line.see(None)
    lost = client.get("/api/cameras/0/image.jpg", headers=tag)
    assert lost.status_code == 204
    assert json.loads(lost.headers["x-decision"])["reason"] == "the cable"
    assert client.get("/api/cameras/7/image.jpg").status_code == 404


def test_before_the_first_frame_there_is_no_image_and_no_error():
    answer = Line().client().get("/api/cameras/0/image.jpg")
    assert answer.status_code == 204
    assert "x-decision" not in answer.headers


def test_the_rejects_have_images(line):
    client = line.client()
    (reject,) = client.get("/api/rejects").json()["rejects"]
    assert (reject["score"], reject["threshold"]) == (0.7, 0.5)
    answer = client.get(f"/api/rejects/{reject['sequence']}/image.jpg?size=thumbnail")
    assert answer.headers["content-type"] == "image/jpeg"
    assert client.get("/api/rejects/99/image.jpg").status_code == 204, "forgotten"


def test_a_threshold_is_previewed_applied_and_saved(line):
    client = line.client(**BEARER)
    found = client.get("/api/preview?category=bolt&threshold=0.05").json()
    assert (found["frames"], found["would_reject"], found["rejects_now"]) == (2, 2, 1)
    assert line.controls.thresholds["bolt"] == 0.5, "trying changes nothing"
    assert client.post("/api/threshold", json={"category": "bolt", "value": 0.9}).is_success
    assert (line.controls.thresholds["bolt"], line.saved) == (0.9, [])
    asked = {"category": "bolt", "value": 0.8, "save": True}
    assert client.post("/api/threshold", json=asked).is_success
    assert (line.controls.thresholds["bolt"], line.saved) == (0.8, [("bolt", 0.8)])


def test_what_a_threshold_costs_on_the_test_images(line):
    line = Line(labelled=Labelled(rows()))
    found = line.client().get("/api/tested?category=bolt&threshold=0.38").json()
    assert (found["untested"], found["good"], found["defective"]) == ("", 4, 6)
    assert found["in_force"] == {"rejected": 0, "missed": 2}
    assert found["tried"] == {"rejected": 1, "missed": 1}
    # From a threshold below all to one above all; the image without a decision is never missed.
    assert found["curve"] == [[4, 0], [1, 0], [1, 1], [0, 1], [0, 5]]
    line.controls.set_threshold("bolt", 0.38)
    again = line.client().get("/api/tested?category=bolt&threshold=0.38").json()
    assert again["in_force"] == found["tried"]
    assert line.client().get("/api/tested?category=plate&threshold=1").status_code == 404


def test_without_labelled_test_images_that_is_said(line):
    line = Line(labelled=Labelled(rows()))
    found = line.client().get("/api/tested?category=nut&threshold=1").json()
    assert (found["untested"], found["curve"]) == ("no test image shows a defect of nut", [])
    good_or_bad = [tuple(row for row in rows() if row.good == good) for good in (True, False)]
    for only, why in zip(good_or_bad, ("shows a defect of bolt", "shows a good bolt"), strict=True):
        line = Line(labelled=Labelled(only))
        found = line.client().get("/api/tested?category=bolt&threshold=1").json()
        assert (found["untested"], found["curve"]) == (f"no test image {why}", [])
    line = Line(labelled=Labelled((), "no labelled test images were judged: run hvq-edge eval"))
    found = line.client().get("/api/tested?category=bolt&threshold=1").json()
    assert found["untested"] == "no labelled test images were judged: run hvq-edge eval"


def test_a_threshold_that_cannot_be_saved_is_not_in_force():
    def full(_category: str, _value: float) -> None:
        raise OutputError("no space is left.", next_step="free some")

    line = Line(save_threshold=full)
    asked = {"category": "bolt", "value": 0.8, "save": True}
    answer = line.client(**BEARER).post("/api/threshold", json=asked)
    assert answer.status_code == 507
    assert answer.json() == {"cause": "no space is left.", "next_step": "free some"}
    assert line.controls.thresholds["bolt"] == 0.5
    line = Line(save_threshold=None)
    assert line.client(**BEARER).post("/api/threshold", json=asked).status_code == 409
    assert line.controls.thresholds["bolt"] == 0.5


def test_pause_and_category(line):
    client = line.client(**BEARER)
    assert client.post("/api/pause", json={"paused": True}).is_success
    assert line.controls.paused
    assert client.post("/api/pause", json={"paused": False}).is_success
    assert not line.controls.paused
    assert client.post("/api/category", json={"category": "nut"}).is_success
    assert client.get("/api/state").json()["category"]["current"] == line.chosen == "nut"
    fixed = Line(category=None)
    assert fixed.client().get("/api/state").json()["category"] is None
    answer = fixed.client(**BEARER).post("/api/category", json={"category": "nut"})
    assert answer.status_code == 409


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/api/pause", {"paused": "perhaps"}, 422),
        ("/api/pause", {}, 422),
        ("/api/threshold", {"category": "plate", "value": 1.0}, 404),
        ("/api/threshold", {"category": "bolt", "value": "high"}, 422),
        ("/api/threshold", {"category": "bolt", "value": 1.0, "also": 1}, 422),
        ("/api/category", {"category": "plate"}, 404),
    ],
)
def test_what_cannot_be_done_is_said(line, path, content, status):
    answer = line.client(**BEARER).post(path, json=content)
    assert answer.status_code == status
    assert answer.json()["cause"]
    assert answer.json()["next_step"]
    assert line.controls.thresholds == {"bolt": 0.5, "nut": 2.0}


def test_nan_is_no_threshold(line):
    headers = {**BEARER, "content-type": "application/json"}
    body = b'{"category": "bolt", "value": NaN}'
    assert line.client().post("/api/threshold", content=body, headers=headers).status_code == 422
    assert line.client().get("/api/preview?category=bolt&threshold=nan").status_code == 422


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


ROUTES = [*router.routes, *common.routes, *predict_api.router.routes]
DESCRIBED = [route for route in ROUTES if route.include_in_schema]
API = [route for route in DESCRIBED if route.path.startswith("/api/")]
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


def test_health_is_open_and_its_reasons_are_not(line):
    client = line.client(reading_is_open=False)
    assert client.get("/healthz").status_code == 200
    line.connected, line.fault = False, "no signal at 10.0.0.3"
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert answer.json() == {"working": False, "failing": [], "degraded": []}
    told = client.get("/healthz", headers=BEARER).json()
    assert told["failing"] == [f"camera {CAMERA}: no signal at 10.0.0.3"]


def test_a_sink_that_fails_is_an_alarm_but_no_reason_to_start_again(line):
    line.sinks = (SinkStatistics("recording", 5, 2, 0, fault="no space is left"),)
    answer = line.client().get("/healthz")
    assert answer.status_code == 200
    assert answer.json()["degraded"] == ["recording: no space is left"]


def test_images_unlike_the_training_images_are_an_alarm_too(line):
    line.unlike = "unlike the training images of bolt: softer (0.2 of 0.5)"
    answer = line.client().get("/healthz")
    assert answer.status_code == 200
    assert answer.json()["degraded"] == [f"camera {CAMERA}: {line.unlike}"]
    (camera,) = line.client().get("/api/state").json()["cameras"]
    assert camera["unlike"] == line.unlike


def test_drift_is_an_alarm_until_it_is_acknowledged(line):
    line.drift = "drift of bolt: softer (0.2 of 0.5) since 2026-01-01 10:00:00 UTC: clean the lens"
    answer = line.client().get("/healthz")
    assert answer.status_code == 200
    assert answer.json()["degraded"] == [f"camera {CAMERA}: {line.drift}"]
    (camera,) = line.client().get("/api/state").json()["cameras"]
    assert camera["drift"] == line.drift
    assert line.client().post("/api/drift", json={"camera": CAMERA}).status_code == 401
    assert line.acknowledged == []
    known = line.client(**BEARER)
    assert known.post("/api/drift", json={"camera": "another"}).status_code == 404
    assert known.post("/api/drift", json={"camera": CAMERA}).status_code == 200
    assert line.acknowledged == [CAMERA]
    unwatched = Line(acknowledge_drift=None).client(**BEARER)
    assert unwatched.post("/api/drift", json={"camera": CAMERA}).status_code == 409


def test_metrics_are_those_of_the_function_given():
    line = Line(metrics=lambda statistics: f"frames {statistics.counts.frames}\n".encode())
    line.see(0.1)
    answer = line.client().get("/metrics")
    assert answer.text == "frames 1\n"
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert Line().client().get("/metrics").status_code == 404


@pytest.fixture(scope="module")
def document() -> dict:
    answer = Line().client().get("/openapi.json")
    assert answer.json()["openapi"] == "3.1.0"
    return answer.json()


def test_every_route_of_the_api_is_described_and_the_other_way_round(document):
    served = {(route.path, method.lower()) for route in DESCRIBED for method in route.methods}
    described = {
        (path, method) for path, methods in document["paths"].items() for method in methods
    }
    assert served == described
    for path, methods in document["paths"].items():
        for one in methods.values():
            named = {item["name"] for item in one.get("parameters", []) if item["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def validate(document: dict, schema: dict, content: object) -> None:
    whole = {**schema, "components": document["components"]}
    Draft202012Validator.check_schema(whole)
    Draft202012Validator(whole).validate(content)


ASKED = {
    "preview": "?category=bolt&threshold=0.3",
    "tested_images": "?category=bolt&threshold=0.3",
    "login": {"token": TOKEN},
    "logout": {},
    "pause": {"paused": False},
    "threshold": {"category": "bolt", "value": 0.6, "save": True},
    "category": {"category": "nut"},
    "acknowledge_drift": {"camera": CAMERA},
}


@pytest.mark.parametrize("route", API, ids=lambda route: route.name)
def test_answers_are_as_described(line, document, route):
    line.see(0.9)
    client = line.client(**BEARER)
    ((method, described),) = document["paths"][route.path].items()
    assert described["operationId"] == route.name
    path = route.path.replace("{index}", "0").replace("{sequence}", "2")
    if method == "get":
        answer = client.get(path + ASKED.get(route.name, ""))
    else:
        content = ASKED[route.name]
        if route.name != "logout":
            schema = described["requestBody"]["content"]["application/json"]["schema"]
            validate(document, schema, content)
        answer = client.post(path, json=content)
    assert answer.status_code == 200
    ((media, told),) = described["responses"]["200"]["content"].items()
    assert answer.headers["content-type"] == media
    if media == "application/json":
        validate(document, told["schema"], answer.json())
    if path in dict(CHANGES):
        assert described["security"] == [{"token": []}]
        refused = line.client().post(path, json=content)
        schema = described["responses"]["4XX"]["content"]["application/json"]["schema"]
        validate(document, schema, refused.json())


def test_what_is_not_served_is_refused_in_the_same_words(line):
    client = line.client(**BEARER)
    answer = client.get("/api/pause")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    for path in ("/nowhere", "/page/nothing.js", "/docs", "/redoc"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json() == {"cause": "Not Found.", "next_step": "see /openapi.json"}


@pytest.mark.parametrize("path", ["/", "/api/state", "/openapi.json", "/page/main.js"])
def test_the_head_of_an_answer_can_be_asked_for(line, path):
    assert line.client().head(path).status_code == 200
