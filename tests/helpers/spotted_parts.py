"""Parts that are judged by their spots: images, a bundle, and what evaluating them gives.

The graph scores an image by its brightest 16x16 block, so a bright square is a defect, and with
mode auto it chooses the category by the strongest colour: bolt red, nut green, washer plate blue.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.thresholds import threshold_at

pytest.importorskip("onnx")
pytest.importorskip("sklearn")
pytest.importorskip("jinja2")
from helpers.graphs import CATEGORIES, SIDE, save_bundle

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.data.dataset import find_dataset
from hvq_edge.evaluation.evaluate import evaluate, ways_of
from hvq_edge.runtime.open_engine import open_engine

COLOUR = {name: channel for channel, name in enumerate(CATEGORIES)}


def draw(path: Path, category: str, spot: int, colour: int | None = None) -> None:
    """A plain image in the category's colour with a square of ``spot`` at one block."""
    image = np.full((SIDE, SIDE, 3), 60, np.uint8)
    image[..., COLOUR[category] if colour is None else colour] += 40
    image[16:32, 32:48] += np.uint8(spot)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())


def draw_mask(path: Path) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:32, 32:48] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", mask)[1].tobytes())


@pytest.fixture
def data(tmp_path):
    """bolt: perfectly separable, with masks; nut: one defect below all good ones, no masks."""
    root = tmp_path / "Prüf data"
    for category, good, bad in (("bolt", (0, 4, 8), (30, 40, 50)), ("nut", (5, 10), (0, 20, 30))):
        draw(root / category / "train/good/0.png", category, 0)
        for spot in good:
            draw(root / category / f"test/good/{spot:03}.png", category, spot)
        for spot in bad:
            draw(root / category / f"test/bright/{spot:03}.png", category, spot)
            if category == "bolt":
                draw_mask(root / category / f"ground_truth/bright/{spot:03}_mask.png")
    return root


@pytest.fixture
def run_evaluation(data, tmp_path):
    def run(mode="auto", *, known=None, categories=None, **options):
        folder = tmp_path / f"bundle {mode}"
        if folder.exists():
            bundle = open_bundle(folder)
        else:
            bundle = save_bundle(folder, mode, categories=categories)
        with closing(open_engine(bundle, backend="onnxruntime")) as engine:
            known = ways_of(engine.info)[0] if known is None else known
            return evaluate(engine, find_dataset(data), known_category=known, **options)

    return run


def metrics_of(evaluation, category):
    (found,) = [one for one in evaluation.categories if one.category == category]
    return found


@pytest.fixture
def bundle(tmp_path):
    made = save_bundle(tmp_path / "bundle", "auto", precisions=("fp32", "int8"))
    limit = threshold_at(0.31, images=3, rule="largest score of held-out good images")
    thresholds = {"fp32": {"bolt": limit, "nut": limit.model_copy(update={"value": 10.33})}}
    write_manifest(made.path, made.manifest.model_copy(update={"thresholds": thresholds}))
    return open_bundle(made.path)
