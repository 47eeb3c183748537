"""The review page in a real browser: by keyboard, by touch, and who may do what."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from helpers.browser import (  # noqa: F401  # one is a fixture
    barriers,
    browser,
    looking,
    needs_chromium,
)
from helpers.live_line import BEARER, TOKEN, client_of
from helpers.patience import PATIENCE_SECONDS
from helpers.reviewed_line import open_recording, record
from playwright.sync_api import Page, expect

from hvq_edge.stream.live_page.access import Access
from hvq_edge.stream.live_page.api import Served
from hvq_edge.stream.live_page.serve import serve
from hvq_edge.stream.live_page.settings import LivePageSettings
from hvq_edge.stream.log.reader import all_rows
from hvq_edge.stream.log.reviews import append_review, latest_reviews
from hvq_edge.stream.log.verification import verify_log
from hvq_edge.stream.review.desk import ReviewDesk


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """Newest first: rejects are rows 8, 6 and 4."""
    return record(tmp_path_factory.mktemp("recorded"), "prprnur", sample=0.0)


@contextmanager
def reviewing(recorded: Path, folder: Path) -> Iterator[SimpleNamespace]:
    out = Path(shutil.copytree(recorded, folder / "out"))
    desk = ReviewDesk(out, lambda review: append_review(out, review))
    with serve(LivePageSettings(port=0), None, review=desk) as serving:
        yield SimpleNamespace(out=out, serving=serving, desk=desk)


@pytest.fixture
def line(recorded, tmp_path) -> Iterator[SimpleNamespace]:
    with reviewing(recorded, tmp_path) as running:
        yield running


def said(out: Path) -> list[tuple[int, str, str | None]]:
    rows = [json.loads(row.more) for row in all_rows(out) if row.kind == "review"]
    return [(one["decision"], one["judgement"], one["defect"]) for one in rows]


def see(page: Page, frame: int) -> None:
    """Wait until a frame's image is there: before, no key judges it."""
    expect(page.locator("#image")).to_have_attribute("alt", f"REJECT, frame {frame}")
    expect(page.locator("#good")).to_be_enabled()


@needs_chromium
def test_nothing_keeps_people_from_using_it(browser, line):
    look = {"viewport": {"width": 390, "height": 844}, "locale": "de-DE"}
    with looking(browser, line.serving.token_url, **look) as page:
        expect(page.locator("#image")).to_have_attribute("alt", "AUSSCHUSS, Bild 6")
        expect(page.locator("#good")).to_be_enabled()
        page.locator("#by").fill("Ada")
        page.locator("#defective").click()
        expect(page.locator("#kinds")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert barriers(page) == []
        page.locator("#no-kind").click()
        page.locator("#show-numbers").click()
        expect(page.locator("#numbers")).to_be_visible()
        expect(page.locator("#days th").last).to_have_text("Alle")
        assert barriers(page) == []


@needs_chromium
def test_one_key_judges_and_one_takes_it_back(browser, line):
    rows = {row.frame: row.id for row in all_rows(line.out) if row.verdict == "reject"}
    with looking(browser, line.serving.token_url) as page:
        see(page, 6)
        page.keyboard.press("g")
        expect(page.locator("#say")).to_contain_text("Say who you are")
        expect(page.locator("#by")).to_have_value("")  # the key's letter is no part of the name
        page.locator("#by").fill("Ada")
        page.keyboard.press("Enter")
        page.keyboard.press("g")
        see(page, 3)
        page.locator("#why").fill("deep")
        page.keyboard.press("Enter")
        page.keyboard.press("d")
        page.keyboard.type("scratch")
        page.keyboard.press("Enter")
        see(page, 1)
        page.keyboard.press("s")
        expect(page.locator("#empty")).to_have_text("Nothing is left to judge here.")
        page.keyboard.press("u")
        see(page, 1)
        page.keyboard.press("d")
        page.keyboard.press("1")
        expect(page.locator("#empty")).to_have_text("Nothing is left to judge here.")
        expect(page.locator("#queues button").first).to_contain_text("3 judged")
        page.locator("#show-numbers").click()
        expect(page.locator("#days tr.total")).to_contain_text("33 %")
        page.keyboard.press("Escape")
    assert said(line.out) == [
        (rows[6], "good", None),
        (rows[3], "defective", "scratch"),
        (rows[1], "skip", None),
        (rows[1], "withdrawn", None),
        (rows[1], "defective", "scratch"),
    ]
    assert [one.why for one in latest_reviews(line.out).values()] == ["", "deep", ""]
    assert verify_log(line.out).whole


@needs_chromium
def test_a_thumb_judges_on_a_tablet_and_on_a_phone(browser, line):
    width, height = 820, 1180
    look = {"viewport": {"width": width, "height": height}, "has_touch": True, "is_mobile": True}
    with looking(browser, line.serving.token_url, **look) as page:
        see(page, 6)
        page.locator("#by").fill("Ada")
        for name in ("good", "defective", "skip", "undo"):
            button = page.locator(f"#{name}").bounding_box()
            assert button["height"] >= 52, "a thumb hits it"
            assert button["width"] >= 150
            assert button["y"] + button["height"] <= height, "without scrolling"
        page.locator("#defective").tap()
        page.locator("#kind").fill("dent")
        page.locator("#kinds .primary").tap()
        see(page, 3)
        page.locator("#good").tap()
        see(page, 1)
        page.set_viewport_size({"width": 390, "height": 844})
        good = page.locator("#good").bounding_box()
        assert good["y"] + good["height"] <= 844
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert [one[1:] for one in said(line.out)] == [("defective", "dent"), ("good", None)]


@needs_chromium
def test_without_the_token_one_can_look_and_not_judge(browser, line):
    with looking(browser, line.serving.url) as page:
        expect(page.locator("#image")).to_have_attribute("alt", "REJECT, frame 6")
        expect(page.locator("#good")).to_be_disabled()
        page.keyboard.press("g")
        page.locator("#lock").click()
        page.get_by_label("Token").fill(line.serving.token)
        page.keyboard.press("Enter")
        expect(page.locator("#good")).to_be_enabled()
    assert said(line.out) == []


def test_the_command_serves_it_until_a_signal(line):
    command = [sys.executable, "-m", "hvq_edge", "review", str(line.out), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        at = json.loads(process.stdout.readline())
        known = {"authorization": f"Bearer {at['token']}"}
        asked = {"decision": 4, "judgement": "defective", "defect": "dent", "by": "Ada"}
        with httpx.Client(base_url=at["url"], headers=known, timeout=PATIENCE_SECONDS) as asking:
            assert "review.js" in asking.get("/").text
            assert asking.post("/api/review", json=asked).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
    assert said(line.out) == [(4, "defective", "dent")]


@pytest.fixture
def client(recorded, tmp_path):
    out = Path(shutil.copytree(recorded, tmp_path / "out"))
    desk = ReviewDesk(out, lambda review: append_review(out, review))
    return lambda **headers: client_of(Served(None, Access(TOKEN), review=desk), **headers)


def test_reading_and_judging_need_the_token_that_the_page_has(client):
    ask = {"decision": 4, "judgement": "good", "by": "Ada"}
    assert client().get("/api/review").status_code == 401
    assert client().get("/review").headers["location"] == "/login"
    assert client().post("/api/review", json=ask).status_code == 401
    other = client(**BEARER, origin="http://elsewhere.example")
    assert other.post("/api/review", json=ask).status_code == 403
    known = client(**BEARER)
    assert known.get("/review").status_code == 200
    answer = known.post("/api/review", json=ask)
    assert (answer.status_code, answer.json()["by"]) == (200, "Ada")


def test_what_cannot_be_judged_is_refused_with_the_reason(client):
    known = client(**BEARER)
    answer = known.post("/api/review", json={"decision": 1, "judgement": "good", "by": "Ada"})
    assert (answer.status_code, "no decision 1" in answer.json()["cause"]) == (422, True)
    answer = known.post("/api/review", json={"decision": 4, "judgement": "bad", "by": "Ada"})
    assert answer.status_code == 422
    assert known.get("/api/review/4/image.jpg").headers["content-type"] == "image/jpeg"
    answer = known.get("/api/review/1/image.jpg")
    assert (answer.status_code, "no decision 1" in answer.json()["cause"]) == (404, True)
    assert known.get("/api/review/queue?name=all").status_code == 422


def test_while_an_inspector_records_a_review_is_in_conflict(client, tmp_path):
    """The disk is not to blame, so the answer is not 507."""
    known = client(**BEARER)
    sinks = open_recording(tmp_path / "out")
    try:
        answer = known.post("/api/review", json={"decision": 4, "judgement": "good", "by": "Ada"})
    finally:
        sinks.close(None)
    assert (answer.status_code, "another inspector" in answer.json()["cause"]) == (409, True)


def test_an_image_that_made_room_is_no_error(client, tmp_path):
    known = client(**BEARER)
    assert known.get("/api/review/4/image.jpg").status_code == 200, "before any queue is asked for"
    shutil.rmtree(tmp_path / "out" / "rejects")
    assert known.get("/api/review/4/image.jpg").status_code == 204


def test_a_long_log_is_read_piece_by_piece(client, monkeypatch):
    """No request of a page holds a thread for as long as millions of rows take."""
    monkeypatch.setattr("hvq_edge.stream.review.desk.ROWS_AT_ONCE", 4)
    known = client(**BEARER)
    states = [known.get("/api/review").json() for _ in range(4)]
    assert [state["reading"] for state in states] == [True, True, False, False]
    assert [queue["images"] for queue in states[-1]["queues"]] == [3, 1, 1, 0]


def test_a_line_that_records_nothing_has_no_review():
    served = Served(None, Access(TOKEN))
    assert client_of(served, **BEARER).get("/api/review").status_code == 404
