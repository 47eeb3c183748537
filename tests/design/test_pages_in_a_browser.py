"""Pages that are files, on a phone: nothing keeps people from using them, nothing is cut off."""

from __future__ import annotations

from datetime import datetime

import pytest
from helpers.browser import barriers, browser, needs_chromium  # noqa: F401  # fixtures
from helpers.reviewed_line import record

from hvq_edge.design.language import language_of, speaking
from hvq_edge.design.pages import page_environment
from hvq_edge.predict.result import OVERLAY
from hvq_edge.predict.results_folder import Kept
from hvq_edge.stream.report.page import render_shift
from hvq_edge.stream.report.shift import gather_shift
from hvq_edge.verdict.judgement import VerdictCounts

pytestmark = needs_chromium
WIDTH = 390
COUNTS = VerdictCounts(rejected=1, passed=1, no_decision=1)


@pytest.fixture
def opened(browser, tmp_path):
    """Open a page, and say what keeps people from using it."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 844})

    def look(html: str):
        file = tmp_path / "page.html"
        file.write_text(html, "utf-8")
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == WIDTH
        assert barriers(page) == []
        return page

    yield look
    page.close()


def test_the_shift_report(opened, tmp_path):
    out = record(tmp_path, "prprnur")
    now = datetime.now().astimezone()
    since = datetime.fromtimestamp(0).astimezone()
    with speaking(language_of("de")):
        page = opened(render_shift(gather_shift(out, since, now)))
    assert page.title().startswith("Schichtbericht ")
    said = " ".join(page.locator("main").inner_text().split())
    assert "Grund, ohne Zahlen" in said
    assert "Ausschuss because 3" in said, "what no catalogue knows stays as it is"
    assert "Unversehrt, als dieser Bericht entstand: Zeilen 1 bis" in said


def test_the_gallery(opened):
    common = {"files": {OVERLAY: "none.png"}, "threshold": 0.5, "p_value": None, "part": None}
    dark = "too dark: brightness 3.1, at least 20.4"
    shown = {
        "reject": {"score": 0.75},
        "pass": {"score": 0.25, "p_value": 0.012, "part": "7"},
        "no_decision": {"score": None, "reason": dark},
    }
    kept = [
        Kept({**common, "verdict": verdict, **fields}, f"{verdict}.png")
        for verdict, fields in shown.items()
    ]
    template = page_environment("hvq_edge.predict", language_of("de")).get_template("gallery.html")
    groups = [("bolt", kept[:2]), ("", kept[2:])]
    page = opened(template.render(title="3 images judged", groups=groups, counts=COUNTS))
    assert page.title() == "3 Bilder beurteilt"
    captions = [" ".join(one.split()) for one in page.locator("figcaption").all_inner_texts()]
    assert captions == [
        "AUSSCHUSS 0,75 von 0,5 reject.png",
        "GUT 0,25 von 0,5, p 0,012 pass.png, Teil 7",
        "KEINE ENTSCHEIDUNG zu dunkel: Helligkeit 3,1, mindestens 20,4 no_decision.png",
    ]
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator("figure:visible").count() == 1, "the rejects alone, by keyboard"
