"""Judge test images of the demo as a person would, for four pictures of docs/pictures.

    hvq-edge demo
    hvq-edge export runs/demo --int8 --exemplars
    python -m benchmarks.review_image runs/demo/bundle ~/.cache/hvq-edge/solar-cells docs/pictures

A line inspects the test images once and keeps a third of the passes by chance; half of what there
is to review is judged by the labels of the images, kinds of defects by eye; Chromium shows the
review page, the shift report with its groups, and why a cell is rejected, as a click on its image
tells: review.jpg, shift-report.jpg, alike.jpg and explain-click.jpg. The images are those of
``elpv-dataset`` (CC BY-NC-SA 4.0), and so is what is drawn on them.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import tomli_w
from playwright.sync_api import Browser, sync_playwright

from benchmarks.live_page_image import CHROMIUM, FLAGS
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.explain.explainer import Explainer
from hvq_edge.export.learn.region_features import RegionFeatures
from hvq_edge.predict.predictor import load
from hvq_edge.stream.from_settings import open_line
from hvq_edge.stream.live_page.judge import ImageJudge
from hvq_edge.stream.live_page.serve import serve
from hvq_edge.stream.live_page.settings import LivePageSettings
from hvq_edge.stream.log.reviews import append_review
from hvq_edge.stream.report.page import render_shift
from hvq_edge.stream.report.shift import gather_shift
from hvq_edge.stream.review.choice import QUEUES
from hvq_edge.stream.review.desk import ReviewDesk
from hvq_edge.stream.settings import load_stream_settings

SHARE = 0.3
BY, DEFECT = "Ada", "broken cell"
KINDS = {
    "crack": "3 10 19 30 40 59 255 268 484 489 495 510 515 523 536 604 611 617 639 806 2044 2547",
    "dark area": "24 45 53",
    "dark spot": "77 792",
    "dark edge": "1729 1899",
    "bright area": "246 2070",
}
"""Numbers of cells, as one sees them: the labels tell no kinds apart."""


def inspect(bundle: Path, data: Path, out: Path) -> None:
    """Let a line with a camera for each category judge its test images."""
    cameras = [
        {"camera": str(folder / "test"), "name": folder.name}
        for folder in sorted(data.glob("solar_cell_*"))
    ]
    images = {"sample": SHARE}
    table = {"bundle": str(bundle), "out": str(out), "video": False, "cameras": cameras}
    settings = out.parent / "line.toml"
    settings.write_text(tomli_w.dumps({**table, "sinks": {"images": images}}), encoding="utf-8")
    with open_line(load_stream_settings(settings)) as line:
        for _ in line:
            pass


def judge(desk: ReviewDesk) -> None:
    """Judge every other decision by the folder that its image is in, and the kind by eye."""
    seen = {f"cell{int(one):04}": kind for kind, cells in KINDS.items() for one in cells.split()}
    for queue in QUEUES:
        in_order = sorted(desk.listed(queue), key=lambda one: str(one.candidate.image))
        for listed in in_order[1::2]:
            found = listed.candidate
            if "good" in str(found.image).split("/"):
                desk.judge(found.id, "good", by=BY)
            else:
                kind = seen.get(Path(str(found.image)).stem, DEFECT)
                desk.judge(found.id, "defective", by=BY, defect=kind)


def photograph_review(browser: Browser, desk: ReviewDesk, path: Path) -> None:
    """Photograph the page as it asks for the kind of a defect."""
    with serve(LivePageSettings(port=0), None, review=desk) as serving:
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.goto(serving.token_url)
        page.locator("#by").fill(BY)
        page.keyboard.press("Enter")
        while "good/" in page.locator("#facts").inner_text() or page.locator("#good").is_disabled():
            if page.locator("#good").is_enabled():
                page.keyboard.press("ArrowRight")
            page.wait_for_timeout(50)
        page.keyboard.press("d")
        page.screenshot(path=path, quality=82)
        page.close()


def photograph_explanation(browser: Browser, desk: ReviewDesk, bundle: Bundle, path: Path) -> None:
    """Click on the image of the newest reject, and photograph what opens."""
    with (
        ImageJudge(lambda: load(bundle)) as judge,
        serve(
            LivePageSettings(port=0), None, review=desk, explainer=Explainer(bundle, judge)
        ) as serving,
    ):
        page = browser.new_page(viewport={"width": 1280, "height": 1340})
        page.goto(serving.token_url)
        page.locator("#explain:enabled").wait_for()
        page.locator("#image").click()
        page.frame_locator("#explanation").locator(".patch").first.wait_for()
        page.screenshot(path=path, quality=80)
        page.close()


def photograph_report(browser: Browser, bundle: Bundle, out: Path, folder: Path) -> None:
    """Photograph the upper part of the report of the last hour, and its rejects that look alike."""
    now = datetime.now().astimezone()
    features = RegionFeatures(bundle)
    shift = gather_shift(out, now - timedelta(hours=1), now, describe=features)
    report = out.parent / "shift-report.html"
    report.write_text(render_shift(shift), "utf-8")
    page = browser.new_page(viewport={"width": 1080, "height": 1780})
    page.goto(f"file://{report}")
    page.screenshot(path=folder / "shift-report.jpg", quality=80)
    page.locator("section", has=page.locator(".group")).screenshot(
        path=folder / "alike.jpg", quality=80
    )
    page.close()


def main() -> None:
    """Write all three."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, help="solar cells as the demo lays them out")
    parser.add_argument("folder", type=Path, help="to write the pictures to")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="line-") as temporary, sync_playwright() as playwright:
        out = Path(temporary) / "out"
        inspect(given.bundle, given.data, out)
        desk = ReviewDesk(out, lambda review: append_review(out, review))
        judge(desk)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        photograph_review(browser, desk, given.folder / "review.jpg")
        bundle = open_bundle(given.bundle)
        photograph_explanation(browser, desk, bundle, given.folder / "explain-click.jpg")
        photograph_report(browser, bundle, out, given.folder)
        browser.close()


if __name__ == "__main__":
    main()
