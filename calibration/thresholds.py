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


def learn_thresholds(
    engine: Engine,
    data: Path,
    pictures: Sequence[Path],
    category: Sequence[str],
    on_progress: ProgressCallback = silent,
) -> dict[str, Threshold]:
    """Learn the threshold of every category that has pictures.

    A picture counts for the category it was judged as: where the graph chooses the category
    itself, that is the threshold its score will meet on the line.

    Args:
        engine: runs the model file whose thresholds these will be.
        data: what the pictures' paths are relative to.
        pictures: held-out good pictures, relative to ``data``.
        category: each picture's category, by name.
        on_progress: called after each picture.

    Returns:
        Thresholds by category name, in the order of the engine's categories.

    Raises:
        PictureError: a picture cannot be read.
    """
    info = engine.info
    scores: dict[str, list[tuple[float, str]]] = {name: [] for name in info.categories}
    # One at a time, as on the line: an engine may round INT8 otherwise in a batch.
    for done, (path, name) in enumerate(zip(pictures, category, strict=True), start=1):
        given = None
        if info.category_mode == "input":
            given = np.array([info.categories.index(name)], np.int32)
        output = engine.run(read_frame(data / path, info.input_side)[None], given)
        judged = info.categories[int(output["category"][0])]
        scores[judged].append((float(output["score"][0]), path.as_posix()))
        on_progress(f"thresholds {info.precision}", done, len(pictures))
    return {name: _threshold(found) for name, found in scores.items() if found}


def _threshold(found: Sequence[tuple[float, str]]) -> Threshold:
    ordered = sorted(found, reverse=True)
    return Threshold(
        value=ordered[0][0],
        pictures=len(ordered),
        rule=RULE,
        highest_picture=ordered[0][1],
        next_highest=ordered[1][0] if len(ordered) > 1 else None,
        median=float(np.median([score for score, _ in ordered])),
    )
