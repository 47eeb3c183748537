"""Judge test images of the demo for docs/pictures: overlay.jpg, predict.jpg, explain.jpg.

    hvq-edge demo
    python -m benchmarks.overlay_image runs/demo ~/.cache/hvq-edge/solar-cells docs/pictures

The first shows three broken cells that are rejected (the median score of each category, and the
highest of the first) and a good one of median score that passes; the second the gallery that
``hvq-edge predict --save`` keeps, in Chromium; the third the page that ``hvq-edge explain`` makes
of the rejected cell of median score of the last category. The images are those of
``elpv-dataset`` (CC BY-NC-SA 4.0), and so is what is drawn on them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import ViewportSize, sync_playwright

import hvq_edge
from benchmarks.live_page_image import CHROMIUM, FLAGS
from hvq_edge.evaluation.explain_run import RunInsight
from hvq_edge.explain.explanation import explain
from hvq_edge.explain.pages import save_explanation
from hvq_edge.predict.images import find_images
from hvq_edge.predict.results_folder import GALLERY, ResultsFolder

PRECISION = "int8"
GAP = 12
"""Pixels between two images."""
SHOWN = ViewportSize(width=1440, height=1290)


def with_verdict(results: Sequence[hvq_edge.Result], verdict: str) -> list[hvq_edge.Result]:
    """Return the results with this verdict, the lowest score first."""
    return sorted(
        (one for one in results if one.verdict == verdict), key=lambda one: float(one.score or 0.0)
    )


def side_by_side(results: Sequence[hvq_edge.Result], path: Path) -> None:
    """Write what a person at the line sees of each image."""
    images = [one.plot() for one in results]
    gap = np.full((len(images[0]), GAP, 3), 255, np.uint8)
    row = np.concatenate([part for image in images for part in (image, gap)][:-1], axis=1)
    cv2.imwrite(str(path), cv2.cvtColor(row, cv2.COLOR_RGB2BGR))


def photograph_gallery(results: Sequence[hvq_edge.Result], path: Path) -> None:
    """Keep results as the command does, and photograph the gallery's upper part."""
    with tempfile.TemporaryDirectory() as kept:
        folder = ResultsFolder(Path(kept), f"{len(results)} images judged")
        for one in results:
            folder.add(one, str(Path(*Path(one.name).parts[-2:])))
        folder.finish()
        photograph(Path(kept, GALLERY), path)


def photograph_explanation(run: Path, model: hvq_edge.Predictor, name: str, path: Path) -> None:
    """Explain an image as the command does, and photograph the page's upper part."""
    (result,) = model.each(find_images(name))
    found = explain(result, RunInsight(run, model.bundle))
    with tempfile.TemporaryDirectory() as kept:
        page, *_ = save_explanation(found, Path(kept), "cell")
        photograph(page, path)


def photograph(page_file: Path, path: Path) -> None:
    """Open a page in Chromium, and write what is seen of it first."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport=SHOWN)
        page.goto(f"file://{page_file}")
        page.wait_for_function("[...document.images].slice(0, 12).every((one) => one.complete)")
        page.screenshot(path=path, quality=80)
        browser.close()


def main() -> None:
    """Write all three."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="that was exported")
    parser.add_argument("data", type=Path, help="in the layout of MVTec AD")
    parser.add_argument("out", type=Path, help="a folder")
    given = parser.parse_args()
    with hvq_edge.load(given.run, precision=PRECISION) as model:
        tests = {
            name: model.predict(given.data / name / "test")
            for name in model.bundle.manifest.categories
        }
        broken, good = {}, {}
        for name, results in tests.items():
            defective = [one for one in results if Path(one.name).parent.name == "defective"]
            broken[name] = with_verdict(defective, "reject")
            good[name] = with_verdict([one for one in results if one not in defective], "pass")
        last = [*tests][-1]
        explained = broken[last][len(broken[last]) // 2].name
        photograph_explanation(given.run, model, explained, given.out / "explain.jpg")
    first = next(iter(tests))
    median = [found[len(found) // 2] for found in (*broken.values(), good[first])]
    side_by_side([broken[first][-1], *median], given.out / "overlay.jpg")
    photograph_gallery(tests[last], given.out / "predict.jpg")


if __name__ == "__main__":
    main()
