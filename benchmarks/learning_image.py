"""Make docs/pictures/learn.jpg and new-category.jpg: cells with a bundle and with a later one.

    python -m benchmarks.learning_image runs/line/bundle runs/line/bundle-learnt CELL.png ... OUT

One row each: before and after ``hvq-edge learn``, or ``hvq-edge add-category``.

The images are those of ``elpv-dataset`` (CC BY-NC-SA 4.0), and so is what is drawn on them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

import hvq_edge
from benchmarks.overlay_image import GAP

PRECISION = "int8"


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("before", type=Path, help="bundle")
    parser.add_argument("after", type=Path, help="bundle that learnt")
    parser.add_argument("images", type=Path, nargs="+", help="images, and the file to write last")
    given = parser.parse_args()
    *images, out = given.images
    rows = []
    for bundle in (given.before, given.after):
        with hvq_edge.load(bundle, precision=PRECISION, backend="openvino") as model:
            shown = [model.predict(image).plot() for image in images]
        gap = np.full((len(shown[0]), GAP, 3), 255, np.uint8)
        parts = [part for image in shown for part in (image, gap)][:-1]
        rows.append(np.concatenate(parts, axis=1))
    between = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    picture = np.concatenate([rows[0], between, rows[1]])
    cv2.imwrite(str(out), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
