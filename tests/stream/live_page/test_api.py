"""The API: what it gives of a line, and what it changes."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from helpers.judged_images import rows
from helpers.live_api import line  # noqa: F401  # a fixture
from helpers.live_line import BEARER, CAMERA, Line

from hvq_edge.bundle.judged_images import Labelled
from hvq_edge.errors import OutputError
from hvq_edge.stream.statistics import SinkStatistics


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
