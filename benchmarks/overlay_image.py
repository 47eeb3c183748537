"""Judge test images of the demo and make pictures of that: docs/overlay.jpg, docs/predict.jpg.

    hvq-edge demo
    python -m benchmarks.overlay_image runs/demo ~/.cache/hvq-edge/solar-cells docs

The first shows three broken cells that are rejected (the median score of each category, and the
highest of the first) and a good one of median score that passes; the second the gallery that
``hvq-edge predict --save`` keeps, in Chromium. The images are those of ``elpv-dataset``
(CC BY-NC-SA 4.0), and so is what is drawn on them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import sync_playwright

import hvq_edge
from benchmarks.live_page_image import CHROMIUM, FLAGS
from hvq_edge.predict.results_folder import GALLERY, ResultsFolder

PRECISION = "int8"
GAP = 12
"""Pixels between two images."""
SHOWN = {"width": 1440, "height": 1290}


def with_verdict(results: Sequence[hvq_edge.Result], verdict: str) -> list[hvq_edge.Result]:
    """Return the results with this verdict, the lowest score first."""
    return sorted((one for one in results if one.verdict == verdict), key=lambda one: one.score)


def side_by_side(results: Sequence[hvq_edge.Result], path: Path) -> None:
    """Write what a person at the line sees of each image."""
    images = [one.plot() for one in results]
    gap = np.full((len(images[0]), GAP, 3), 255, np.uint8)
    row = np.concatenate([part for image in images for part in (image, gap)][:-1], axis=1)
    cv2.imwrite(str(path), cv2.cvtColor(row, cv2.COLOR_RGB2BGR))


def photograph_gallery(results: Sequence[hvq_edge.Result], path: Path) -> None:
    """Keep results as the command does, and photograph the gallery's upper part."""
    with tempfile.TemporaryDirectory() as kept, sync_playwright() as playwright:
        folder = ResultsFolder(Path(kept), f"{len(results)} images judged")
        for one in results:
            folder.add(one, str(Path(*Path(one.name).parts[-2:])))
        folder.finish()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport=SHOWN)
        page.goto(f"file://{kept}/{GALLERY}")
        page.wait_for_function("[...document.images].slice(0, 12).every((one) => one.complete)")
        page.screenshot(path=path, quality=80)
        browser.close()


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="a bundle or the run around it")
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
    first, last = next(iter(tests)), [*tests][-1]
    median = [found[len(found) // 2] for found in (*broken.values(), good[first])]
    side_by_side([broken[first][-1], *median], given.out / "overlay.jpg")
    photograph_gallery(tests[last], given.out / "predict.jpg")


if __name__ == "__main__":
    main()
