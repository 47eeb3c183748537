"""A real browser for tests: Debian's Chromium, and what axe-core finds in its pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from benchmarks.live_page_image import CHROMIUM, FLAGS

PATIENCE_MS = 30_000
"""A machine that builds something beside takes seconds for what takes milliseconds."""
expect.set_options(timeout=PATIENCE_MS)

needs_chromium = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="there is no Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield opened
        opened.close()


@contextmanager
def looking(browser: Browser, url: str, **look: object) -> Iterator[Page]:
    """A page that must neither complain nor ask anybody but us."""
    context = browser.new_context(**look)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    yield page
    assert complaints == []
    assert {urlsplit(one).hostname for one in asked if not one.startswith("blob:")} == {"127.0.0.1"}
    context.close()


def barriers(page: Page) -> list[str]:
    """What keeps people from using a page, in light and in dark, by WCAG 2.1 A and AA.

    A run takes half a second; the page's policy forbids nothing of it, for the browser's own tools
    bring it in.
    """
    found = []
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for one in page.evaluate(RUN):
            found += [f"{scheme}: {one['id']}: {node}" for node in one["nodes"]]
    return found


RUN = """() => axe
  .run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] })
  .then(({ passes, violations }) => [...violations, ...(passes.length ? [] : [NOTHING])].map(
    ({ id, nodes }) => ({ id, nodes: nodes.map(({ html }) => html.slice(0, 200)) })
  ))""".replace("NOTHING", '{ id: "nothing was looked at", nodes: [{ html: "" }] }')
