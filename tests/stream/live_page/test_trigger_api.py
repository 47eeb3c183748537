"""Triggers over the live page: the decision of what was taken, and when none is."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import httpx
from helpers.graphs import save_bundle
from helpers.image_judging import BAD, GOOD, PNG
from helpers.live_line import BEARER, CAMERA, TOKEN, Line, client_of
from helpers.thresholds import threshold_at

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.stream.from_settings import open_line
from hvq_edge.stream.live_page.access import Access
from hvq_edge.stream.live_page.api import Served
from hvq_edge.stream.settings import load_stream_settings

JSON = {"content-type": "application/json"}


def triggered(**cameras: Callable[[str], tuple[int, dict[str, Any]]]) -> Any:
    view = Line().view if cameras else None
    served = Served(view, Access(TOKEN, reading_is_open=True), triggers=cameras)
    return client_of(served, **BEARER, **JSON)


def test_a_trigger_is_answered_with_the_decision():
    decision = Line().see(0.7).fields()
    status, body = HTTPStatus.OK, {"frame": 7, "decisions": [decision]}
    answer = triggered(front=lambda _: (status, body)).post("/trigger")
    assert answer.status_code == 200
    assert answer.json() == json.loads(json.dumps(body))
    assert decision["camera"] == CAMERA
    late = triggered(front=lambda _: (HTTPStatus.ACCEPTED, {"frame": None, "decisions": []}))
    answer = late.post("/trigger", json={"camera": "front"})
    assert (answer.status_code, answer.json()) == (202, {"frame": None, "decisions": []})


def test_a_trigger_that_cannot_be_is_refused():
    def full(_part: str) -> tuple[int, dict[str, Any]]:
        return HTTPStatus.SERVICE_UNAVAILABLE, {"fault": "too many triggers wait"}

    answer = triggered(front=full).post("/trigger")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    answer = triggered().post("/trigger")
    assert (answer.status_code, answer.json()["cause"]) == (409, "there is no camera.")
    two = triggered(front=full, back=full)
    assert two.post("/trigger").status_code == 422
    assert two.post("/trigger", json={"camera": "top"}).status_code == 404
    assert two.post("/trigger", json={"part": "x" * 201}).status_code == 422
    assert two.post("/trigger", headers={"authorization": "no"}).status_code == 401
    assert two.post("/trigger", headers={"origin": "http://evil.example"}).status_code == 403


def test_the_page_of_a_line_judges_and_triggers_as_the_line_does(tmp_path):
    saved = save_bundle(tmp_path / "bundle", "input")
    limits = {name: threshold_at(10.6) for name in saved.manifest.categories}
    write_manifest(saved.path, saved.manifest.model_copy(update={"thresholds": {"fp32": limits}}))
    (tmp_path / "images").mkdir()
    for i, content in enumerate((BAD, GOOD)):
        (tmp_path / f"images/{i}.png").write_bytes(content)
    settings = load_stream_settings(
        cameras=[str(tmp_path / "images")],
        each_camera={"trigger_port": 0},
        page={"port": 0},
        flags={
            "bundle": saved.path,
            "backend": "onnxruntime",
            "category": "nut",
            "display": False,
        },
    )
    with open_line(settings) as line, ThreadPoolExecutor(1) as pool:
        inspecting = pool.submit(lambda: [*line])
        headers = {"authorization": f"Bearer {line.page.token}"}
        with httpx.Client(base_url=line.page.url, headers=headers, timeout=60.0) as asking:
            for content in (BAD, GOOD):
                asked = {"part": f" SN {len(content)}"}
                (taken,) = asking.post("/trigger", json=asked).json()["decisions"]
                assert taken["part"] == asked["part"].strip()
                judged = asking.post("/predict", content=content, headers=PNG).json()
                same = ("verdict", "score", "category", "regions")
                assert [judged[key] for key in same] == [taken[key] for key in same]
                assert judged["verdict"] == ("reject" if content == BAD else "pass")
            assert asking.post("/api/category", json={"category": "bolt"}).is_success
            judged = asking.post("/predict", content=BAD, headers=PNG).json()
            assert (judged["category"], judged["verdict"]) == ("bolt", "pass")
            assert asking.get("/api/state").json()["counts"]["frames"] == 2
        line.stop()
        assert [one.verdict for one in inspecting.result()] == ["reject", "pass"]
