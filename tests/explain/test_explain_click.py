"""Why, at a click: on the live page and the review page, by mouse, key and touch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from helpers.browser import browser, looking, needs_chromium  # noqa: F401  # one is a fixture
from helpers.exemplars import put_exemplars
from helpers.live_line import BEARER, TOKEN, client_of
from helpers.patience import PATIENCE_SECONDS
from playwright.sync_api import Page, expect

from hvq_edge.bundle.opened import Bundle
from hvq_edge.cli.review import _explaining
from hvq_edge.evaluation.explain_run import RunInsight
from hvq_edge.explain.explanation import BundleInsight, explain
from hvq_edge.predict.images import find_images
from hvq_edge.predict.predictor import load
from hvq_edge.stream.from_settings import open_line
from hvq_edge.stream.live_page.access import Access
from hvq_edge.stream.live_page.api import Served
from hvq_edge.stream.review.desk import ReviewDesk
from hvq_edge.stream.settings import load_stream_settings

LOW = 0.2
"""A threshold that rejects them all."""
TRIES = 3


@pytest.fixture(scope="module")
def cells(solar_cells, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    for path in sorted(solar_cells.glob("solar_cell_poly/test/defective/*"))[:3]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def bundle(small_trained_bundle, small_run, tmp_path_factory) -> Bundle:
    """As it comes to a device: with exemplars, and without its run."""
    folder = tmp_path_factory.mktemp("device") / "bundle"
    shutil.copytree(small_trained_bundle, folder)
    return put_exemplars(folder, RunInsight(small_run))


@pytest.fixture(scope="module")
def line(bundle, cells, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A line that has judged the cells, all of them rejects; its page stays."""
    out = tmp_path_factory.mktemp("line") / "out"
    settings = load_stream_settings(
        cameras=[str(cells)],
        page={"port": 0},
        flags={
            "bundle": bundle.path,
            "precision": "fp32",
            "backend": "onnxruntime",
            "out": out,
            "video": False,
        },
    )
    with open_line(settings) as opened:
        for name in bundle.manifest.categories:
            opened.inspector.controls.set_threshold(name, LOW)
        decisions = list(opened)
        opened.finish()
        yield SimpleNamespace(page=opened.page, decisions=decisions, out=out)


def shown(page: Page) -> None:
    """The explanation is there, with its patches, of the bundle's exemplars."""
    frame = page.frame_locator("#explanation")
    expect(frame.locator("h1")).to_be_visible()
    expect(frame.locator(".patch").first).to_be_visible()
    assert frame.locator(".patch").count() > 3
    expect(frame.locator("body")).to_contain_text("of good cells choose it")
    expect(frame.locator("body")).to_contain_text("missing: which part of the map")
    expect(page.locator("#explained-say")).to_have_text("")


def explained_by(page: Page, ask: Callable[[], object]) -> None:
    """Ask until it is shown: a busy machine may refuse, and then the page says so."""
    for _ in range(TRIES):
        expect(page.locator("#explained")).to_be_hidden()
        ask()
        with suppress(AssertionError):
            expect(page.frame_locator("#explanation").locator("h1")).to_be_visible(timeout=20_000)
            return
        assert page.locator("#explained").is_visible(), "the key opens the dialog"
        assert page.locator("#explained-say").text_content(), "and that says what is"
        page.locator("#explained-close").click()
    raise AssertionError(f"refused {TRIES} times")


@needs_chromium
def test_a_click_and_a_key_explain_on_the_live_page(browser, line):
    with looking(browser, line.page.token_url) as page:
        image = page.locator(".camera .image")
        expect(page.locator(".camera .explain")).to_be_enabled()
        explained_by(page, image.click)
        shown(page)
        last = line.decisions[-1]
        expect(page.frame_locator("#explanation").locator("h1")).to_have_text(last.image)
        page.locator("#explained-close").click()
        explained_by(page, lambda: page.locator("#heat").press("e"))
        shown(page)
        page.locator("#explained-close").click()
        page.locator("#rejects button").last.click()
        expect(page.locator("#viewer-explain")).to_be_visible()
        explained_by(page, lambda: page.keyboard.press("E"))
        first = line.decisions[0]
        expect(page.frame_locator("#explanation").locator("h1")).to_have_text(first.image)
        shown(page)


@needs_chromium
def test_a_thumb_explains_on_the_review_page(browser, line):
    look = {"viewport": {"width": 412, "height": 900}, "has_touch": True, "is_mobile": True}
    address = line.page.token_url.replace("#", "review#")
    with looking(browser, address, **look) as page:
        expect(page.locator("#image")).to_be_visible()
        explained_by(page, page.locator("#explain").tap)
        shown(page)
        wide = page.frame_locator("#explanation").locator("html")
        assert wide.evaluate("one => one.scrollWidth <= one.clientWidth"), "it fits a phone"
        page.locator("#explained-close").tap()
        explained_by(page, page.locator("#image").tap)
        shown(page)


@needs_chromium
def test_whoever_is_not_logged_in_is_told_so(browser, line):
    with looking_denied(browser, line.page.url) as page:
        expect(page.locator(".camera .explain")).to_be_enabled()
        page.locator(".camera .explain").click()
        expect(page.locator("#explained-say")).to_contain_text("need the token")
        expect(page.locator("#explanation")).to_be_hidden()


@needs_chromium
def test_a_late_answer_is_not_shown_as_that_of_another_decision(browser, line):
    with looking_denied(browser, line.page.url) as page:
        said, hidden = page.evaluate("""async () => {
            const { explain } = await import("/page/dialogs.js");
            const answers = [];
            window.fetch = () => new Promise((give) => answers.push(give));
            const both = [explain({ sequence: 1 }), explain({ sequence: 2 })];
            answers[1](new Response('{"cause": "busy"}', { status: 503 }));
            await both[1];
            answers[0](new Response('{"page": "/api/explain/1"}'));
            await both[0];
            const at = (id) => document.getElementById(id);
            return [at("explained-say").textContent, at("explanation").hidden];
        }""")
    assert (said, hidden) == ("busy", True)


@contextmanager
def looking_denied(browser, url) -> Iterator[Page]:
    """Chromium itself writes to its console that a request was refused."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    yield page
    context.close()


def test_the_line_s_own_codes_are_shown_as_the_command_shows_them(line, bundle, cells):
    path = cells / line.decisions[0].image
    with load(bundle, precision="fp32", backend="onnxruntime") as model:
        model.thresholds = dict.fromkeys(model.thresholds, LOW)
        (result,) = model.each(find_images(path))
        wanted = explain(result, BundleInsight(bundle))
    found = explain(replace(result, decision=line.decisions[0]), BundleInsight(bundle))
    assert found.to_dict()["places"] == wanted.to_dict()["places"]
    with asking(line) as client:
        answer = client.post("/api/explain", json={"sequence": 1})
        page = client.get(answer.json()["page"])
    for place in wanted.places:
        for one in place.nearest:
            assert f"{one.name}, code {one.code}" in page.text
    assert "judged with fp32" in page.text
    policy = page.headers["content-security-policy"]
    assert ("sandbox" in policy, "script" in policy) == (True, False)
    assert page.headers["x-frame-options"] == "SAMEORIGIN"
    assert page.headers["cache-control"] == "no-store", "after a restart its number is another's"


def asking(line: SimpleNamespace) -> httpx.Client:
    headers = {"authorization": f"Bearer {line.page.token}"}
    return httpx.Client(base_url=line.page.url, headers=headers, timeout=PATIENCE_SECONDS)


def test_an_earlier_decision_is_judged_again(line):
    with asking(line) as client:
        (item, *_) = client.get("/api/review/queue?name=reject").json()["items"]
        answer = client.post("/api/explain", json={"decision": item["id"]})
        page = client.get(answer.json()["page"]).text
        assert "judged again" not in page, "the same model gives the same score"
        assert f"score {item['score']:.4g}" in page
        assert client.post("/api/explain", json={"decision": 10**6}).status_code == 404
        for asked in ({}, {"sequence": 1, "decision": item["id"]}, {"sequence": "one"}):
            assert client.post("/api/explain", json=asked).status_code == 422
        assert client.post("/api/explain", json={"sequence": 99}).status_code == 404
        assert client.get("/api/explain/9999").status_code == 404
        paths = client.get("/openapi.json").json()["paths"]
    assert {"/api/explain", "/api/explain/{number}"} <= set(paths)


def test_the_review_command_explains_with_a_bundle(line, bundle):
    desk = ReviewDesk(line.out, lambda _: 0)
    assert desk.read_on()
    (first, *_) = desk.listed("reject")
    asked = {"decision": first.candidate.id}
    with _explaining(bundle.path) as explainer:
        served = Served(None, Access(TOKEN), review=desk, explainer=explainer)
        client = client_of(served, **BEARER)
        assert client.get("/api/review").json()["can_explain"] is True
        answer = client.post("/api/explain", json=asked)
        assert first.candidate.image in client.get(answer.json()["page"]).text
        assert client.post("/api/explain", json={"sequence": 1}).status_code == 404, "no line"
    with _explaining(None) as nothing:
        client = client_of(Served(None, Access(TOKEN), review=desk, explainer=nothing), **BEARER)
        assert client.post("/api/explain", json=asked).status_code == 404
