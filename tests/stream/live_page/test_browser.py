"""The live page in a real browser, over a real inspector of a rendered video."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers.bright_parts import BrightnessEngine
from helpers.browser import (  # noqa: F401  # one is a fixture
    PATIENCE_MS,
    barriers,
    browser,
    looking,
    needs_chromium,
)
from helpers.graphs import save_bundle
from helpers.inspected_video import CAMERA, inspecting, video  # noqa: F401  # one is a fixture
from helpers.thresholds import threshold_at
from playwright.sync_api import Page, expect

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.thresholds import BY_HAND
from hvq_edge.predict.predictor import Predictor
from hvq_edge.stream.drift.category import Alarm
from hvq_edge.stream.live_page.judge import ImageJudge
from hvq_edge.stream.live_page.serve import serve
from hvq_edge.stream.live_page.settings import LivePageSettings
from hvq_edge.stream.sources.cameras.frame_counter import Transport

pytestmark = needs_chromium

PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def line(video, tmp_path_factory) -> Iterator[SimpleNamespace]:
    with inspecting(video, tmp_path_factory.mktemp("line")) as running:
        yield running


def wait_until(page: Page, script: str, argument: object = None) -> None:
    """Playwright's own way evaluates text in the page, which the page forbids."""
    for _ in range(PATIENCE_MS // 50):
        if page.evaluate(script, argument):
            return
        page.wait_for_timeout(50)
    raise AssertionError(script)


@pytest.fixture(scope="module")
def window(browser, line) -> Iterator[Page]:
    """Logged in by the address that the inspector printed; every browser's start takes a while."""
    with looking(browser, line.serving.token_url) as opened:
        expect(opened.locator("#pause")).to_be_enabled()
        yield opened


@pytest.fixture
def page(window, line) -> Iterator[Page]:
    """That window with the page loaded anew; between tests it is empty, and asks for nothing."""
    line.controls.set_threshold("bolt", 0.6)
    window.goto(line.serving.url)
    yield window
    window.goto("about:blank")


PIXELS = """() => {
  const image = document.querySelector(".image");
  if (!image?.naturalWidth) return "";
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.toDataURL();
}"""


def test_images_move_and_scores_are_drawn(page):
    wait_until(page, f"() => ({PIXELS})() !== ''")
    first = page.evaluate(PIXELS)
    wait_until(page, f"(first) => ({PIXELS})() !== first", first)
    expect(page.locator(".name").first).to_have_text(CAMERA)
    wait_until(
        page,
        "() => /the last [0-9]{2,} decisions/.test(document.querySelector('.chart').ariaLabel)",
    )
    inked = """() => {
      const canvas = document.querySelector(".chart");
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      return data.filter((value, index) => index % 4 === 3 && value > 0).length;
    }"""
    assert page.evaluate(inked) > 500
    expect(page.locator("#health")).to_have_text("Working")


def test_a_reject_appears_and_is_shown_large(page):
    page.wait_for_selector('.camera[data-look="reject"]')
    thumbnail = page.locator("#rejects button").first
    expect(thumbnail).to_be_visible()
    assert thumbnail.locator("img").evaluate("(one) => one.decode().then(() => one.naturalWidth)")
    thumbnail.click()
    expect(page.locator("#viewer")).to_be_visible()
    shown = page.locator("#viewer-image")
    assert shown.evaluate("(one) => one.decode().then(() => one.naturalWidth)") == 160
    expect(page.locator("#viewer-facts")).to_contain_text("threshold 0.6")
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()


def test_a_part_is_found_by_its_serial_number(page):
    shown = r"SN-17 \u202e<b>"
    found = page.locator("#found li")
    expect(found).to_have_count(6)
    page.locator("#part").fill("sn-17")
    expect(found.first.locator(".part")).to_have_text(shown)
    expect(found.first.locator("small")).to_contain_text("parts.avi#17")
    expect(page.locator("#found-note")).to_contain_text("hvq-edge log show --part NUMBER")
    assert found.first.get_attribute("data-look") == "reject"
    found.first.locator("button").click()
    expect(page.locator("#viewer-facts")).to_contain_text(f"part {shown}  ·  parts.avi#17")
    expect(page.locator("#viewer")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()  # while it is open, nothing can be typed behind
    page.locator("#part").fill("SN-99")
    expect(found).to_have_count(0)
    expect(page.locator("#found-note")).to_contain_text("Not among the last")


def test_a_threshold_is_tried_with_the_keyboard_then_applied_then_saved(page, line):
    expect(page.locator("#preview")).to_contain_text("the threshold in force rejects")
    expect(page.locator("#apply")).to_be_disabled()
    page.locator("#slider").focus()
    page.keyboard.press("Home")
    expect(page.locator("#preview")).to_contain_text("would reject")
    assert line.controls.thresholds["bolt"] == 0.6, "trying changes nothing"
    page.locator("#value").fill("0.25")
    expect(page.locator("#preview")).to_contain_text("0.250 would reject")
    page.locator("#apply").click()
    expect(page.locator("#threshold-note")).to_contain_text("In force")
    assert line.controls.thresholds["bolt"] == 0.25
    page.locator("#value").fill("0.55")
    page.locator("#by").fill("Ada")
    page.locator("#save").click()
    expect(page.locator("#threshold-note")).to_contain_text("Saved in the bundle")
    saved = open_bundle(line.bundle).manifest.thresholds["fp32"]["bolt"]
    assert (saved.value, line.controls.thresholds["bolt"]) == (0.55, 0.55)
    assert line.controls.changed_by("bolt") == "Ada"
    assert saved.rule.startswith(BY_HAND)


TEXT_COLOURED = """(one) => {
  const places = [];
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [one.width, one.height];
  const pen = copy.getContext("2d");
  pen.drawImage(one, 0, 0); // a canvas that is read twice makes the browser complain
  const scale = one.width / one.clientWidth;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const data = pen.getImageData(0, 0, one.width, one.height).data;
  for (let i = 0; i < data.length; i += 4) {
    const bright = (data[i] + data[i + 1] + data[i + 2]) / 3;
    if (data[i + 3] === 255 && (dark ? bright > 230 : bright < 35)) {
      places.push((i / 4) % one.width / scale);
    }
  }
  const x = places.reduce((sum, place) => sum + place, 0) / places.length;
  return { inked: places.length / scale ** 2, x };
}"""


@pytest.mark.parametrize(
    ("width", "height", "scheme"),
    [(360, 740, "light"), (1440, 900, "dark"), (1920, 1080, "light")],
)
def test_the_card_shows_what_the_threshold_costs_on_test_images(
    browser, line, width, height, scheme
):
    line.controls.set_threshold("bolt", 0.6)
    look = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    with looking(browser, line.serving.url, **look) as page:
        said = page.locator("#tested")
        expect(said).to_have_text("3 of 6 defects missed, 0 of 4 good parts rejected.")
        before = page.locator("#trade-off").evaluate(TEXT_COLOURED)
        assert 60 < before["inked"] < 200, "one dot, in the colour of text"
        assert before["x"] == pytest.approx(60, abs=2), "no good part is rejected"
        page.locator("#value").fill("0.05")
        expect(said).to_contain_text("At 0.050: 0 of 6 defects missed, 4 of 4 good parts rejected")
        after = page.locator("#trade-off").evaluate(TEXT_COLOURED)
        assert after["inked"] > before["inked"], "a second dot"
        assert after["x"] > before["x"] + 20
        card = page.locator("#threshold-card").bounding_box()
        drawn = page.locator("#trade-off").bounding_box()
        assert drawn["width"] >= 250
        assert card["x"] <= drawn["x"]
        assert drawn["x"] + drawn["width"] <= card["x"] + card["width"] <= width


def test_a_category_without_test_images_has_no_curve(page):
    expect(page.locator("#trade-off")).to_be_visible()
    page.locator("#category").select_option("ant")
    expect(page.locator("#tested")).to_have_text("Not known: no test image shows a defect of ant.")
    expect(page.locator("#trade-off")).to_be_hidden()


def test_pause_stops_judging_and_resume_goes_on(page, line):
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".word")).to_have_text("PAUSED")
    assert line.controls.paused
    page.get_by_role("button", name="Resume").click()
    page.wait_for_selector('.camera:not([data-look="paused"])')
    assert not line.controls.paused


def test_the_heat_map_can_be_left_out(page):
    with page.expect_request(lambda request: "image.jpg?heat=1" in request.url):
        pass
    page.get_by_role("button", name="Heat map").first.click()
    with page.expect_request(lambda request: "image.jpg?heat=0" in request.url):
        pass
    expect(page.locator("#heat")).to_have_attribute("aria-pressed", "false")


def test_without_the_token_one_can_look_and_not_touch(browser, line):
    with looking(browser, line.serving.url) as page:
        page.wait_for_selector('.camera:not([data-look="waiting"])')
        expect(page.locator("#pause")).to_be_disabled()
        page.locator("#value").fill("0.1")
        expect(page.locator("#threshold-note")).to_contain_text("Unlock")
        expect(page.locator("#apply")).to_be_disabled()
        page.get_by_role("button", name="Unlock").click()
        page.get_by_label("Token").fill(line.serving.token)
        page.keyboard.press("Enter")
        expect(page.locator("#pause")).to_be_enabled()
        assert "token" not in page.url


def test_a_lost_camera_is_said_in_words(page, line):
    line.source.pulled.set()
    try:
        expect(page.locator(".word")).to_have_text("CAMERA LOST")
        expect(page.locator(".reason")).to_contain_text("the cable is out")
        expect(page.locator("#alarms")).to_contain_text("the cable is out")
    finally:
        line.source.pulled.clear()
    page.wait_for_selector('.camera[data-look="pass"]')
    expect(page.locator("#alarms p")).to_have_count(0)


def test_what_went_wrong_on_the_way_from_a_camera_is_counted(page, line):
    line.source.transport = Transport(missed=234, incomplete=2)
    expect(page.locator("#parts")).to_contain_text(", 234 missed, 2 incomplete")
    expect(page.locator("#parts")).not_to_contain_text("doubled")
    line.source.transport = Transport()


def test_images_unlike_the_training_images_are_said_in_words(page, line):
    said = "unlike the training images of bolt: softer (0.2 of 0.5)"
    line.likeness.said = said
    try:
        expect(page.locator(".unlike")).to_have_text(said)
        expect(page.locator("#alarms")).to_contain_text(said)
    finally:
        line.likeness.said = ""
    expect(page.locator(".unlike")).to_be_hidden()


def test_drift_is_said_until_somebody_says_that_it_is_well(page, line, browser):
    softer = Alarm("bolt", "sharpness", "softer", 0.2, 0.5, 1.8e9, 40)
    line.drift.alarms = (softer,)
    expect(page.locator(".drift .moved")).to_contain_text(
        f"drift of bolt: {softer}: clean the lens"
    )
    expect(page.locator("#alarms")).to_contain_text("softer (0.2 of 0.5) since 2027-01-15 08:00:00")
    with looking(browser, line.serving.url) as reader:
        expect(reader.locator(".drift button")).to_be_disabled()
    page.get_by_role("button", name="Learn anew").click()
    expect(page.locator(".drift")).to_be_hidden()
    assert line.drift.alarms == ()


def test_a_phone_needs_no_scrolling_sideways(browser, line):
    look = {"viewport": PHONE, "color_scheme": "dark", "device_scale_factor": 2}
    with looking(browser, line.serving.url, **look) as page:
        page.wait_for_selector("#rejects button")
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        sharp = "() => { const one = document.querySelector('.chart');"
        assert page.evaluate(sharp + " return one.width / one.clientWidth; }") == pytest.approx(2)


def test_the_list_of_rejects_is_never_cut_off(browser, line):
    with looking(browser, line.serving.url) as page:
        wait_until(page, "() => document.querySelectorAll('#rejects li').length >= 12")
        for width, columns in ((390, 3), (1440, 4), (1920, 6)):
            page.set_viewport_size({"width": width, "height": 900})
            wait_until(page, f"() => ({TILES})().lefts === {columns}")
            found = page.evaluate(TILES)
            assert (found["hidden"], found["empty"], found["lefts"]) == (0, 0, columns)
            if width < 1900:
                assert found["shown"] == 12


TILES = """() => {
  const list = document.getElementById("rejects");
  const tiles = [...list.children].filter((tile) => tile.clientHeight);
  return {
    hidden: list.scrollHeight - list.clientHeight + list.scrollWidth - list.clientWidth,
    lefts: new Set(tiles.map((tile) => Math.round(tile.getBoundingClientRect().left))).size,
    empty: tiles.filter((tile) => !tile.querySelector("img").naturalWidth).length,
    shown: tiles.length,
  };
}"""


def test_the_page_is_named_after_its_camera(page):
    expect(page).to_have_title(f"{CAMERA} – hvq-edge")
    expect(page.locator("#title")).to_have_text(CAMERA)
    expect(page.locator("#about")).to_have_text("bolt")


def test_the_threshold_is_that_of_the_category_on_the_line(page):
    expect(page.locator("#category")).to_have_value("bolt")
    page.locator("#category").select_option("ant")
    expect(page.locator("#preview")).to_contain_text("No frame of this category")
    page.wait_for_timeout(700)
    expect(page.locator("#category")).to_have_value("ant")


def test_the_legend_goes_with_the_heat(page):
    legend = page.locator(".camera .legend")
    expect(legend).to_be_visible()
    painted = "(one) => getComputedStyle(one).backgroundImage"
    assert "linear-gradient" in legend.locator("i").evaluate(painted)
    page.get_by_role("button", name="Heat map").first.click()
    expect(legend).to_be_hidden()


def test_nothing_keeps_people_from_using_it(browser, line):
    """The whole page on a phone, its dialogs, and the page of a screen over the line in German."""
    with looking(browser, line.serving.url, viewport=PHONE) as page:
        page.wait_for_selector("#rejects button")
        wait_until(page, "() => document.getElementById('spoken').textContent !== ''")
        expect(page.locator("#spoken")).to_contain_text("Reject at ")
        assert barriers(page) == []
        page.locator("#lock").click()
        expect(page.locator("#login")).to_be_visible()
        assert barriers(page) == []
        page.keyboard.press("Escape")
        thumbnail = page.locator("#rejects button").first
        thumbnail.evaluate("(one) => { one.focus(); one.click(); }")
        expect(page.locator("#viewer")).to_be_visible()
        assert barriers(page) == []
        for _ in range(12):  # the focus stays in the dialog, or goes to the browser's own bar
            page.keyboard.press("Tab")
            inside = "() => document.activeElement.closest('dialog, html')?.id"
            assert page.evaluate(inside) in ("viewer", "")
        page.keyboard.press("Escape")
        expect(page.locator("#viewer")).to_be_hidden()


def test_it_speaks_the_language_of_the_browser(browser, line):
    look = {"viewport": {"width": 1920, "height": 1080}, "locale": "de-DE"}
    with looking(browser, line.serving.url, **look) as page:
        assert page.locator("html").get_attribute("lang") == "de"
        page.wait_for_selector('.camera[data-look="reject"]')
        expect(page.locator(".word")).to_have_text("AUSSCHUSS")
        expect(page.locator(".limit")).to_have_text("Schwelle 0,60")
        expect(page.locator("#tested")).to_have_text(
            "3 von 6 Fehlern übersehen, 0 von 4 Gutteilen Ausschuss."
        )
        expect(page.locator("#parts .facts").first).to_contain_text(" Bilder/s")
        line.likeness.said = "unlike the training images of bolt: softer (0.2 of 0.5)"
        try:
            said = "anders als die Trainingsbilder von bolt: unschärfer (0,2, üblich 0,5)"
            expect(page.locator(".unlike")).to_have_text(said)
            expect(page.locator("#alarms")).to_contain_text(f"Kamera {CAMERA}: {said}")
        finally:
            line.likeness.said = ""


def test_one_decision_after_another_is_said_by_keyboard(page):
    page.wait_for_selector("#rejects button")
    page.locator(".chart").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".tip")).to_contain_text(" score 0.")
    page.keyboard.press("Tab")
    expect(page.locator(".tip")).to_be_hidden()


def test_a_dead_inspector_is_not_shown_as_a_pass(browser, video, tmp_path):
    context = browser.new_context()
    page = context.new_page()
    with inspecting(video, tmp_path) as running:
        page.goto(running.serving.url)
        page.wait_for_selector('.camera:not([data-look="waiting"])')
    expect(page.locator(".word")).to_have_text("NO CONNECTION")
    expect(page.locator("#health")).to_have_text("No connection")
    context.close()


def test_an_image_that_somebody_chooses_or_drops_is_judged(browser, tmp_path):
    saved = save_bundle(tmp_path / "bundle")
    limit = {"fp32": {"bolt": threshold_at(0.6)}}
    write_manifest(saved.path, saved.manifest.model_copy(update={"thresholds": limit}))
    bundle = open_bundle(saved.path)
    rng = np.random.default_rng(0)
    images = {name: rng.integers(60, 100, (90, 90, 3), np.uint8) for name in ("good", "bad <b>")}
    images["bad <b>"][20:60, 20:60] = 255
    for name, image in images.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    with (
        ImageJudge(lambda: Predictor(BrightnessEngine(), bundle)) as judge,
        serve(LivePageSettings(port=0), None, judge=judge) as serving,
        looking(browser, serving.token_url) as page,
    ):
        page.wait_for_function("location.hash === ''")  # it has logged in
        for name, word in (("good", "PASS"), ("bad <b>", "REJECT")):
            page.set_input_files("#file", tmp_path / f"{name}.png")
            expect(page.locator("#word")).to_have_text(word)
            expect(page.locator("#facts")).to_contain_text(f"{name}.png · bolt · score ")
            page.wait_for_function("document.getElementById('overlay').naturalWidth > 0")
        page.evaluate(
            """async () => {
              const given = new DataTransfer();
              const grey = new OffscreenCanvas(40, 40);
              grey.getContext("2d").fillRect(0, 0, 40, 40);
              given.items.add(new File([await grey.convertToBlob()], "dropped.png"));
              const kind = { dataTransfer: given, bubbles: true, cancelable: true };
              document.body.dispatchEvent(new DragEvent("drop", kind));
            }"""
        )
        expect(page.locator("#facts")).to_contain_text("dropped.png")
        expect(page.locator("#word")).to_have_text("PASS")
        assert barriers(page) == []
        page.goto(f"{serving.url}login")
        assert barriers(page) == []
