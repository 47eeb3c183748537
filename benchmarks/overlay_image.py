"""Lay the inspector's overlay over test images of the demo: the image docs/overlay.jpg.

    hvq-edge demo
    python -m benchmarks.overlay_image runs/demo/bundle ~/.cache/hvq-edge/solar-cells overlay.jpg

Three broken cells that are rejected (the median score of each category, and the highest of the
first) and a good one of median score that passes. The images are those of ``elpv-dataset``
(CC BY-NC-SA 4.0), and so is what is drawn on them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge import inspect
from hvq_edge.bundle.manifest import Bundle, open_bundle
from hvq_edge.bundle.thresholds import thresholds_of, typical_scores_of
from hvq_edge.common.heat_map import HeatScale
from hvq_edge.data.images import read_image
from hvq_edge.stream.drawing.overlay import annotate
from hvq_edge.verdict.decision import Decision

PRECISION = "int8"
GAP = 12
"""Pixels between two images."""


def judged(bundle: Bundle, folder: Path, verdict: str) -> list[tuple[Decision, Path]]:
    """Judge a folder's images; return those with this verdict, the lowest score first."""
    files = sorted(folder.iterdir())
    decisions = list(inspect(bundle, folder, precision=PRECISION))
    found = [
        (decision, file)
        for decision, file in zip(decisions, files, strict=True)
        if decision.verdict == verdict
    ]
    return sorted(found, key=lambda one: one[0].score or 0.0)


def drawn(bundle: Bundle, decision: Decision, file: Path) -> NDArray[np.uint8]:
    """Return what a person at the line sees, uint8 ``[height, width, 3]``, RGB."""
    name = decision.category or ""
    limits, typical = thresholds_of(bundle, PRECISION), typical_scores_of(bundle, PRECISION)
    return annotate(read_image(file), decision, HeatScale(limits.get(name), typical.get(name)))


def main() -> None:
    """Write the image."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, help="in the layout of MVTec AD")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    first, *others = bundle.manifest.categories
    broken = {
        name: judged(bundle, given.data / name / "test" / "defective", "reject")
        for name in (first, *others)
    }
    good = judged(bundle, given.data / first / "test" / "good", "pass")
    shown = [broken[first][-1], *(broken[name][len(broken[name]) // 2] for name in broken)]
    images = [drawn(bundle, *one) for one in (*shown[:3], good[len(good) // 2])]
    gap = np.full((len(images[0]), GAP, 3), 255, np.uint8)
    row = np.concatenate([part for image in images for part in (image, gap)][:-1], axis=1)
    cv2.imwrite(str(given.out), cv2.cvtColor(row, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
