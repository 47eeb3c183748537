"""The rows that lines are drawn from: good images, clean and under rising disturbances, measured.

What the watch for drift measures of an image is kept, so that a line of 100,000 parts needs no
more than 180 images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.opened import open_bundle
from hvq_edge.cli.console import messages
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import fit_image, read_image
from hvq_edge.data.versions import Pixels, blurred, brightened, jpeg, levels, moved, noisy, tinted
from hvq_edge.run.record import read_run
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.stream.drift.category import PartSeen
from hvq_edge.stream.drift.measures import image_measures
from hvq_edge.verdict.judgement import judgements
from hvq_edge.verdict.likeness.look import look_at
from hvq_edge.verdict.placement import small_grey

CLEAN_COPIES = 6
SIDE = 224

RAMPS: Mapping[str, tuple[str, Sequence[float], Callable[[Pixels, float], Pixels]]] = {
    "darker": (
        "{:.0%}",
        (-0.04, -0.08, -0.12, -0.16, -0.2, -0.3, -0.4),
        brightened,
    ),
    "blur": (
        "{:g} px",
        (0.25, 0.5, 0.75, 1, 1.5, 2, 3),
        lambda image, pixels: blurred(image, *(pixels * n / SIDE for n in image.shape[1::-1])),
    ),
    "shift": (
        "{:.0%}",
        (0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1),
        lambda image, share: moved(image, share, share / 2),
    ),
    "warmer": (
        "{:.2%}",
        (0.0025, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.02),
        tinted,
    ),
}


class Pool(NamedTuple):
    """What was measured of one category's images."""

    ramp: NDArray[np.str_]
    """Of each row; empty for a clean one."""
    strength: NDArray[np.int64]
    """Position among the ramp's strengths."""
    score: NDArray[np.float64]
    margin: NDArray[np.float64]
    image: NDArray[np.float64]
    """``[rows, measures]``."""
    codes: NDArray[np.int32]

    def rows(self, ramp: str = "", strength: int = 0) -> NDArray[np.int64]:
        """Return the rows of a strength that show a known part."""
        found = (self.ramp == ramp) & (self.strength == strength) & (self.margin >= 0)
        return np.flatnonzero(found)

    def part(self, row: int, time: float) -> PartSeen:
        """Return a row as a part that is seen."""
        score, margin = float(self.score[row]), float(self.margin[row])
        return PartSeen(time, score, margin, self.image[row], self.codes[row])


def gather(run: Path, data: Path) -> dict[str, Pool]:
    """Judge the good images that the run did not learn from, clean and on every ramp."""
    bundle = open_bundle(run / "bundle")
    record = read_run(run)
    held = [(i.category, data / i.path) for i in record.images if i.use == "held_out"]
    test = [i for i in find_dataset(data).images if i.split == "test" and i.good]
    images = held + [(i.category, i.path) for i in test]
    found: dict[str, dict[str, list[Any]]] = {}
    seed = 0
    with open_engine(bundle, precision="fp32") as engine:
        for done, (category, path) in enumerate(images, start=1):
            plain = levels(read_image(path))
            versions = [("", 0, plain)] * CLEAN_COPIES
            for ramp, (_, strengths, change) in RAMPS.items():
                versions += [(ramp, i, change(plain, s)) for i, s in enumerate(strengths)]
            kept = found.setdefault(category, {name: [] for name in Pool._fields})
            for ramp, strength, version in versions:
                seed += 1
                seen = jpeg(levels(noisy(version, 1.0, seed)), 90 + seed % 9)
                fitted = fit_image(seen, engine.info.frame_shape)
                (judged,) = judgements(engine.run(fitted[np.newaxis]), engine.info.categories)
                measures = image_measures(look_at(seen, fitted), small_grey(fitted))
                known = judged.margin if judged.category == category else -1.0
                row = (ramp, strength, judged.score, known, measures, judged.codes)
                for name, value in zip(Pool._fields, row, strict=True):
                    kept[name].append(value)
            messages.print(f"{done} of {len(images)} images", end="\r")
    return {
        category: Pool(*(np.array(values) for values in columns.values()))
        for category, columns in found.items()
    }


def kept_pools(file: Path, run: Path, data: Path) -> dict[str, Pool]:
    """Return the pools that a file keeps; gather them first where there is none."""
    if not file.exists():
        flat = {
            f"{category}/{name}": values
            for category, pool in gather(run, data).items()
            for name, values in pool._asdict().items()
        }
        np.savez_compressed(file, **flat)
    with np.load(file) as kept:
        names = sorted({key.partition("/")[0] for key in kept})
        return {name: Pool(*(kept[f"{name}/{key}"] for key in Pool._fields)) for name in names}
