"""The reports in a browser, from the disk: an image is enlarged by a click, without any script."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("jinja2")
from helpers.browser import barriers, browser, needs_chromium  # noqa: F401  # fixtures
from helpers.spotted_parts import bundle, data  # noqa: F401  # fixtures
from playwright.sync_api import expect

from hvq_edge.cli.app import main

pytestmark = needs_chromium


def run(*arguments: object) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert not caught.value.code


def test_images_enlarge_on_click_and_go_back(browser, bundle, data, capsys):
    run("eval", bundle.path, "--data", data, "--precision", "fp32", "--backend", "onnxruntime")
    run("report", bundle.path)
    complaints: list[str] = []
    context = browser.new_context(java_script_enabled=False, offline=True)
    for name in ("eval-fp32/report.html", "acceptance.html"):
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.goto((bundle.path / name).as_uri())
        figures = page.locator(".row figure")
        assert figures.count() >= 4
        figure = figures.nth(1)
        expect(figure).to_be_visible()
        figure.locator("button").scroll_into_view_if_needed()
        before = figure.bounding_box()
        figure.locator("button").click()
        expect(page.locator("figure:popover-open")).to_have_count(1)
        assert figure.bounding_box()["width"] > 1.8 * before["width"]
        page.keyboard.press("Escape")
        expect(page.locator("figure:popover-open")).to_have_count(0)
        assert figure.bounding_box() == before
        figure.locator("button").focus()
        page.keyboard.press("Enter")
        figure.locator("button").click()  # a second click puts it back, too
        expect(page.locator("figure:popover-open")).to_have_count(0)
        expect(page.locator(".legend").first).to_contain_text("red: above")
        page.close()
    context.close()
    assert complaints == []
    page = browser.new_page(viewport={"width": 390, "height": 844})
    for name in ("eval-fp32/report.html", "acceptance.html"):
        page.goto((bundle.path / name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert barriers(page) == []
    page.close()
