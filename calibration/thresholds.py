"""Thresholds learnt from held-out good pictures, for one engine and so for one precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hvq_edge.bundle import Threshold
from hvq_edge.data.pictures import read_frame
from hvq_edge.progress import ProgressCallback, silent
from hvq_edge.runtime.engine import Engine

RULE = "largest score among held-out good pictures"
_BATCH = 4


def learn_thresholds(
    engine: Engine,
    pictures: Sequence[Path],
    category: Sequence[str],
    on_progress: ProgressCallback = silent,
) -> dict[str, Threshold]:
    """Learn the threshold of every category that has pictures.

    A picture counts for the category it was judged as: where the graph chooses the category
    itself, that is the threshold its score will meet on the line.

    Args:
        engine: runs the model file whose thresholds these will be.
        pictures: held-out good pictures.
        category: each picture's category, by name.
        on_progress: called after each batch.

    Returns:
        Thresholds by category name, in the order of the engine's categories.

    Raises:
        PictureError: a picture cannot be read.
    """
    info = engine.info
    scores: dict[str, list[float]] = {name: [] for name in info.categories}
    for start in range(0, len(pictures), _BATCH):
        batch = pictures[start : start + _BATCH]
        frames = np.stack([read_frame(path, info.input_side) for path in batch])
        given = None
        if info.category_mode == "input":
            names = category[start : start + _BATCH]
            given = np.array([info.categories.index(name) for name in names], np.int32)
        output = engine.run(frames, given)
        for score, judged_as in zip(output["score"], output["category"], strict=True):
            scores[info.categories[judged_as]].append(float(score))
        on_progress(f"thresholds {info.precision}", start + len(batch), len(pictures))
    return {
        name: Threshold(value=max(values), pictures=len(values), rule=RULE)
        for name, values in scores.items()
        if values
    }
