"""Make docs/pictures/tiles.jpg: a module with a small defect, its map without tiles and with 4x4.

    python -m benchmarks.accuracy.tiles SOLAR_CELLS --kinds solar_cell_mono
    python -m benchmarks.tiles_image SOLAR_CELLS/solar_cell_mono runs/tiles/solar_cell_mono OUT

Of the modules with a small defect that 4x4 tiles find where 5 % of the good ones are rejected, and
no tiles miss, the one whose score is in the middle. A square marks the defect,
and is in a corner of the first image, enlarged. The images are those
of ``elpv-dataset`` (CC BY-NC-SA 4.0), and so is what is drawn on them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy.tiles import GOOD, SMALL, Pixels, judge, modules_to_test
from benchmarks.overlay_image import GAP
from hvq_edge.common.heat_map import HeatScale, heat_overlay
from hvq_edge.data.images import fit_image
from hvq_edge.model.checkpoint import load_run
from hvq_edge.model.hvq_trans import HVQTrans

FORMS = "1x1", "4x4"
SIDE, MARKED, SHOWN = 900, 60, 620
"""Of a module; of the square around its defect; of a module in the picture. Pixels."""
ZOOM = 5
"""Of that square, in a corner of the first."""
MARK = (0, 170, 255)


def scores_of(model: HVQTrans, images: list[Pixels]) -> NDArray[np.float64]:
    """Judge images, the category known."""
    return np.array([judge(model, image) for image in images])


def heated(model: HVQTrans, image: Pixels, threshold: float, typical: float) -> Pixels:
    """Draw a model's heat on an image: red is what would reject it."""
    frame = torch.from_numpy(fit_image(image, model.tiling.frame_shape)[None])
    with torch.inference_mode():
        found = model(frame, torch.zeros(1, dtype=torch.int64))
    scale = HeatScale(threshold, typical)
    return heat_overlay(image, found["map"][0].numpy(), float(found["score"]), scale)


def main() -> None:
    """Write the picture, and say which module it shows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="one kind of cells, as the demo lays them out")
    parser.add_argument("runs", type=Path, help="what benchmarks.accuracy.tiles trained")
    parser.add_argument("out", type=Path, help="file to write")
    given = parser.parse_args()
    models = [load_run(given.runs / f"{form}, seed 0")[0] for form in FORMS]
    tested = modules_to_test(given.data, 0)
    good = [scores_of(model, tested[GOOD]) for model in models]
    small = [scores_of(model, tested[SMALL]) for model in models]
    thresholds = [float(np.quantile(scores, 0.95)) for scores in good]
    whole, tiled = (scores > limit for scores, limit in zip(small, thresholds, strict=True))
    only = np.flatnonzero(tiled & ~whole)
    chosen = int(only[np.argsort(small[1][only])[len(only) // 2]])
    print(
        f"Found of {len(tiled)}: {whole.sum()} without tiles, {tiled.sum()} with; with them alone "
        f"{len(only)}, without them alone {(whole & ~tiled).sum()}. Module {chosen}."
    )
    image = tested[SMALL][chosen]
    before = modules_to_test(given.data, 0, lambda module, _other, _seed: module)[SMALL][chosen]
    rows, columns, _ = np.nonzero(image != before)
    across = max(np.ptp(rows), np.ptp(columns)) + 1
    print(
        f"Its defect has {across} pixels across, and brightness changes by up to "
        f"{np.abs(image.astype(int) - before).max()} of 255."
    )
    corner = int(columns.mean()) - MARKED // 2, int(rows.mean()) - MARKED // 2
    views = [image.copy()]
    for model, scores, limit in zip(models, good, thresholds, strict=True):
        views.append(heated(model, image, limit, float(np.median(scores))))
    left, top = corner
    close = image[top : top + MARKED, left : left + MARKED]
    close = cv2.resize(close, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_NEAREST)
    views[0][-len(close) :, : len(close)] = close
    cv2.rectangle(views[0], (0, SIDE - len(close), len(close), len(close)), MARK, 3)
    for view in views:
        cv2.rectangle(view, (*corner, MARKED, MARKED), MARK, 3)
    gap = np.full((SHOWN, GAP, 3), 255, np.uint8)
    parts = [one for view in views for one in (fit_image(view, SHOWN), gap)][:-1]
    cv2.imwrite(str(given.out), cv2.cvtColor(np.concatenate(parts, axis=1), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
