"""What tiles find: defects of a few pixels in large images, with and without tiles, in one run.

    python -m benchmarks.accuracy.tiles SOLAR_CELLS --tiles 1x1 2x2 4x4

No data set here has large images, so they are made: 3x3 solar cells of one kind are a part of a
module, 900 x 900 pixels. A module to learn from has cells of ``train/good`` alone. Those to test
have good test cells; *small* defects are drawn on such a module, 4 to 10 pixels across; *real* ones
are modules with one of the cells replaced by a defective one. Every form is trained on the same
modules, with the same epochs and seed, and judged in PyTorch with float32.

Positions apart or shared: whether each tile has a scale of the map of its own, or all have one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.markdown_table import markdown_table
from hvq_edge.cli.console import progress_bars
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.images import fit_image, read_image
from hvq_edge.data.pseudo_defects import KINDS, pseudo_defect
from hvq_edge.errors import HvqEdgeError
from hvq_edge.evaluation.metrics.image_metrics import auroc, recall_at
from hvq_edge.evaluation.table import percent
from hvq_edge.model.checkpoint import load_run
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.training.train import train

ACROSS, CELL_SIDE = 3, 300
LEARNT, TESTED = 40, 60
"""Modules: to learn from, and of each kind to test."""
SMALLEST, LARGEST, DRAWN_IN = 4, 10, 48
"""Pixels across of a small defect; side of the square that it is drawn in."""
ROUNDS = 9
"""In which all forms are timed in turns."""
Pixels = NDArray[np.uint8]
Modules = dict[str, list[Pixels]]
Damage = Callable[[Pixels, Pixels, Sequence[int]], Pixels]
GOOD, SMALL, REAL = "good", "small", "real"


class Form(NamedTuple):
    """One line of the table."""

    name: str
    frame: str
    auroc: Mapping[str, float | None]
    recall: Mapping[str, float | None]


def module(cells: Sequence[Pixels]) -> Pixels:
    """Put cells together, row by row: uint8 ``[900, 900, 3]``."""
    rows = [np.hstack(cells[i : i + ACROSS]) for i in range(0, ACROSS**2, ACROSS)]
    return np.ascontiguousarray(np.vstack(rows))


def with_small_defect(image: Pixels, other: Pixels, seed: Sequence[int]) -> Pixels:
    """Draw a defect of 4 to 10 pixels at a random place."""
    rng = np.random.default_rng(seed)
    while True:
        top, left = rng.integers(0, np.array(image.shape[:2]) - DRAWN_IN + 1)
        spot = slice(top, top + DRAWN_IN), slice(left, left + DRAWN_IN)
        kind = str(rng.choice(list(KINDS)))
        drawn = pseudo_defect(image[spot].copy(), other, kind, int(rng.integers(2**31)))
        rows, columns = np.nonzero(drawn.mask)
        if SMALLEST <= max(np.ptp(rows), np.ptp(columns)) + 1 <= LARGEST:
            damaged = image.copy()
            damaged[spot] = drawn.frame
            return damaged


def modules_to_test(data: Path, seed: int, damage: Damage = with_small_defect) -> Modules:
    """Make the images to test, by kind; small defects are what ``damage`` makes."""
    rng = np.random.default_rng(seed)
    good, bad = (_cells(data / "test" / kind) for kind in ("good", "defective"))
    found: Modules = {GOOD: [], SMALL: [], REAL: []}
    for number in range(TESTED):
        found[GOOD].append(_drawn(good, rng))
        other = good[int(rng.integers(len(good)))]
        found[SMALL].append(damage(_drawn(good, rng), other, (seed, number)))
        cells = [good[i] for i in rng.choice(len(good), ACROSS**2, replace=False)]
        cells[int(rng.integers(ACROSS**2))] = bad[number % len(bad)]
        found[REAL].append(module(cells))
    return found


def write_training_modules(data: Path, out: Path, seed: int) -> None:
    """Write the modules to learn from as ``out/module/train/good``."""
    folder = out / "module" / "train" / "good"
    folder.mkdir(parents=True, exist_ok=True)
    rng, cells = np.random.default_rng(seed + 1), _cells(data / "train" / "good")
    for number in range(LEARNT):
        image = cv2.cvtColor(_drawn(cells, rng), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f"{number:03}.png"), image)


def _cells(folder: Path) -> list[Pixels]:
    return [fit_image(read_image(path), CELL_SIDE) for path in sorted(folder.iterdir())]


def _drawn(cells: Sequence[Pixels], rng: np.random.Generator) -> Pixels:
    return module([cells[i] for i in rng.choice(len(cells), ACROSS**2, replace=False)])


def share_positions(model: HVQTrans) -> None:
    """Give all tiles the mean of their scales."""
    for scale in (model.map_centre, model.map_spread):
        tiles = scale.unflatten(2, (model.tiling.count, -1))
        scale.copy_(tiles.mean(2, keepdim=True).expand_as(tiles).flatten(2))


@torch.inference_mode()
def judge(model: HVQTrans, image: Pixels) -> float:
    """Return an image's score."""
    frame = torch.from_numpy(fit_image(image, model.tiling.frame_shape)[None])
    return float(model(frame, torch.zeros(1, dtype=torch.int64))["score"])


def times_of(models: Sequence[HVQTrans], image: Pixels) -> list[float]:
    """Return the median processor seconds of an image with each model, timed in turns."""
    taken: list[list[float]] = [[] for _ in models]
    for _ in range(ROUNDS):
        for model, own in zip(models, taken, strict=True):
            begun = time.process_time()
            judge(model, image)
            own.append(time.process_time() - begun)
    return [statistics.median(own) for own in taken]


def form_of(name: str, model: HVQTrans, tested: Mapping[str, Sequence[Pixels]]) -> Form:
    """Judge one model's images."""
    scores = {
        kind: np.array([judge(model, image) for image in images]) for kind, images in tested.items()
    }
    good = scores[GOOD]
    both = {kind: np.concatenate([good, scores[kind]]) for kind in (SMALL, REAL)}
    defective = {kind: np.arange(len(all_)) >= len(good) for kind, all_ in both.items()}
    return Form(
        name,
        "x".join(map(str, model.tiling.frame_shape)),
        {kind: auroc(both[kind], defective[kind]) for kind in both},
        {kind: recall_at(both[kind], defective[kind], 0.05) for kind in both},
    )


def table(forms: Sequence[Form], seconds: Sequence[float]) -> str:
    """A line a form; time as a ratio to the first."""
    headings = [
        *("tiles, scales", "frame", "small: AUROC", "recall at 5 %"),
        *("real: AUROC", "recall at 5 %", "processor time"),
    ]
    lines = [
        [
            form.name,
            form.frame,
            *(
                percent(value[kind])
                for kind in (SMALL, REAL)
                for value in (form.auroc, form.recall)
            ),
            f"x {own / seconds[0]:.1f}",
        ]
        for form, own in zip(forms, seconds, strict=True)
    ]
    return markdown_table(headings, lines)


def run_forms(
    data: Path,
    out: Path,
    tiles: Sequence[tuple[int, int]],
    epochs: int,
    seed: int,
    on_progress: ProgressCallback = silent,
) -> tuple[list[Form], list[float]]:
    """Train what is not trained yet in ``out``, and judge and time all."""
    write_training_modules(data, out / "data", seed)
    tested, forms, models = modules_to_test(data, seed), [], []
    for rows, columns in tiles:
        name = f"{rows}x{columns}"
        run = out / f"{name}, seed {seed}"
        train(
            None if run.exists() else out / "data",
            run,
            preset="tiny",
            epochs=epochs,
            seed=seed,
            tiles=(rows, columns),
            resume=run.exists(),
            on_progress=on_progress,
        )
        model = load_run(run)[0]
        apart = rows * columns > 1
        models.append(model)
        forms.append(form_of(f"{name}, apart" if apart else name, model, tested))
        if apart:
            shared = load_run(run)[0]
            share_positions(shared)
            models.append(shared)
            forms.append(form_of(f"{name}, shared", shared, tested))
    return forms, times_of(models, tested[GOOD][0])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of each kind of cell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder that hvq-edge demo lays out")
    parser.add_argument("--out", type=Path, default=Path("runs/tiles"))
    parser.add_argument("--tiles", nargs="+", default=["1x1", "2x2", "4x4"])
    parser.add_argument("--kinds", nargs="+", default=["solar_cell_mono", "solar_cell_poly"])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    asked = [(int(rows), int(columns)) for rows, columns in (one.split("x") for one in given.tiles)]
    for kind in given.kinds:
        try:
            with progress_bars() as bars:
                forms, seconds = run_forms(
                    given.data / kind, given.out / kind, asked, given.epochs, given.seed, bars
                )
        except HvqEdgeError as error:
            parser.exit(error.exit_code, f"{error}\n")
        print(f"{kind}\n\n{table(forms, seconds)}\n")


if __name__ == "__main__":
    main()
