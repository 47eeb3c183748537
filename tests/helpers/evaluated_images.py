"""Images whose evaluation is known: their scores are in their names."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hvq_edge.data.dataset import DatasetImage
from hvq_edge.evaluation.image_result import ImageResult
from hvq_edge.evaluation.metrics.results import Evaluation, category_metrics, mean_metrics


def make_results(folder: Path, category: str, count: int = 5, side: int = 40):
    """``count`` good and defective images whose file names say their score."""
    random = np.random.default_rng(len(category))
    results = []
    for good in (True, False):
        for number in range(count):
            score = number + (0.0 if good else 2.5)
            path = folder / category / f"{'good' if good else 'bad'} {score}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = random.integers(0, 256, (side, 2 * side, 3), dtype=np.uint8)
            path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
            heat = np.full((4, 4), 0.1, np.float32)
            heat[1, 2] = score
            defect = "good" if good else "dent & scratch"
            image_of = DatasetImage(path, category, "test", defect, None)
            results.append(ImageResult(image_of, category, score, heat))
    return results


def make_evaluation(folder: Path, names=("bolt", "nut"), *, known=True, thresholds=None, **sizes):
    by_name = {name: make_results(folder, name, **sizes) for name in names}
    metrics = [
        category_metrics(name, results, None, known_category=known, thresholds=thresholds or {})
        for name, results in by_name.items()
    ]
    return Evaluation(
        data=folder,
        known_category=known,
        images=tuple(result for results in by_name.values() for result in results),
        unreadable=(),
        categories=tuple(metrics),
        mean=mean_metrics(metrics),
        thresholds=thresholds or {},
    )
