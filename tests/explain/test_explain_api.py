"""Why, asked over HTTP: what may be explained, who may ask, and how many at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.live_line import BEARER, TOKEN, Line, client_of
from helpers.patience import PATIENCE_SECONDS
from starlette.testclient import TestClient

from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.explain import explainer as explainer_module
from hvq_edge.explain.explainer import KEPT, PLACES, Explainer
from hvq_edge.explain.explanation import BundleInsight, explain
from hvq_edge.stream.live_page.access import Access
from hvq_edge.stream.live_page.api import Served
from hvq_edge.stream.live_page.history import REJECT_SIDE, SHOWN
from hvq_edge.stream.live_page.judge import Busy


def test_an_engine_that_has_no_time_refuses(plain, tmp_path):
    """As it is while the line ends: what is on its way is cancelled."""

    class Ending:
        def enter(self) -> None:
            pass

        def submit(self, _: bytes) -> Future:
            cancelled: Future = Future()
            cancelled.cancel()
            return cancelled

    (tmp_path / "part.png").write_bytes(b"image")
    plain.explainer._judge = Ending()
    with pytest.raises(Busy):
        plain.explainer.of_file(tmp_path / "part.png", "part.png", 1.0)


class NoJudge:
    """The live page's decisions are explained without asking an engine."""


@pytest.fixture
def plain(small_trained_bundle) -> SimpleNamespace:
    """A line of four decisions, and a bundle without exemplars."""
    seen = Line()
    for score in (0.1, 0.9, 0.2, None):
        decision = seen.see(score, side=1000)
    explainer = Explainer(open_bundle(small_trained_bundle), NoJudge(), "fp32")
    explainer._insight = BundleInsight(renamed(small_trained_bundle))
    served = Served(seen.view, Access(TOKEN, reading_is_open=True), explainer=explainer)
    return SimpleNamespace(line=seen, explainer=explainer, served=served, last=decision)


def renamed(folder: Path) -> Bundle:
    """Its categories are those of the line."""
    found = open_bundle(folder)
    return Bundle(found.path, found.manifest.model_copy(update={"categories": ("bolt", "nut")}))


def page_of(client: TestClient, sequence: int) -> str:
    answer = client.post("/api/explain", json={"sequence": sequence})
    assert answer.status_code == 200, answer.text
    return client.get(answer.json()["page"]).text


def test_without_exemplars_the_page_says_how_to_have_them(plain):
    client = client_of(plain.served, **BEARER)
    page = page_of(client, 2)
    assert "hvq-edge export --exemplars" in page
    assert page.count('role="img"') == 1, "what the image shows, and nothing beside it"


def test_rejects_and_what_a_browser_saw_can_be_explained(plain):
    client = client_of(plain.served, **BEARER)
    assert client.post("/api/explain", json={"sequence": 3}).status_code == 404, "nobody saw it"
    plain.line.see(0.3, side=1000)
    for _ in range(2):
        assert client.get("/api/cameras/0/image.jpg").status_code == 200
    assert "score 0.3" in page_of(client, 5)
    history = plain.line.history
    assert len(history._shown) == 1
    assert max(history.shot(5).image.shape) == REJECT_SIDE
    assert history.shot(5).size == (1000, 1000)
    for _ in range(SHOWN):
        plain.line.see(0.3, side=8)
        client.get("/api/cameras/0/image.jpg")
    assert history.shot(5) is None
    assert client.post("/api/explain", json={"sequence": 4}).status_code == 404, "it was lost"


def test_what_makes_the_machine_work_needs_the_token(plain):
    assert client_of(plain.served).post("/api/explain", json={"sequence": 2}).status_code == 401
    without = Served(plain.line.view, Access(TOKEN, reading_is_open=True))
    answer = client_of(without, **BEARER).post("/api/explain", json={"sequence": 2})
    assert answer.status_code == 404
    assert client_of(without).get("/api/state").json()["can_explain"] is False


def test_one_is_made_at_a_time_and_few_wait(plain, monkeypatch):
    going, held = threading.Event(), threading.Event()
    at_once: list[int] = []
    running = []

    def slow(result, insight, size):
        running.append(1)
        at_once.append(len(running))
        held.set()
        going.wait(PATIENCE_SECONDS)
        running.pop()
        return explain(result, insight, size)

    monkeypatch.setattr(explainer_module, "explain", slow)
    monkeypatch.setattr(explainer_module, "RESTS", 0)
    client = client_of(plain.served, **BEARER)
    answers: list[int] = []

    def ask() -> None:
        answers.append(client.post("/api/explain", json={"sequence": 2}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(PLACES)]
    for thread in threads:
        thread.start()
    assert held.wait(PATIENCE_SECONDS)
    until_full(plain.explainer)
    refused = client.post("/api/explain", json={"sequence": 2})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert f"{PLACES} explanations" in refused.json()["cause"]
    going.set()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert answers == [200] * PLACES
    assert at_once == [1] * PLACES


def until_full(explainer: Explainer) -> None:
    while explainer._places.acquire(blocking=False):
        explainer._places.release()
        time.sleep(0.01)


def test_after_one_the_machine_rests_and_old_pages_make_room(plain, monkeypatch):
    clock = SimpleNamespace(now=0.0, slept=[])

    def sleep(seconds: float) -> None:
        clock.slept.append(seconds)
        clock.now += seconds

    monkeypatch.setattr(
        explainer_module, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep)
    )

    def takes(result, insight, size):
        clock.now += 0.1
        return explain(result, insight, size)

    monkeypatch.setattr(explainer_module, "explain", takes)
    shot = plain.line.history.shot(2)
    numbers = [plain.explainer.of_shot(shot) for _ in range(KEPT + 1)]
    assert clock.slept[0] == 0.0
    assert np.allclose(clock.slept[1:], 0.3)
    assert plain.explainer.page(numbers[0]) is None
    assert plain.explainer.page(numbers[1]) is not None
