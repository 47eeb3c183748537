"""Scores of good images for one engine, and so for one precision; and thresholds from them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hvq_edge.bundle.manifest import ImageLimits, Threshold
from hvq_edge.bundle.thresholds import GoodPart, learn_threshold
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.images import read_frame
from hvq_edge.runtime.engine import Engine
from hvq_edge.verdict.image_limits import fault, measure

HELD_OUT = "held-out good images of the training data"


@dataclass
class Judged:
    """What an engine said of good images."""

    parts: dict[str, list[GoodPart]]
    """By the category each was judged as."""
    unusable: Counter[str] = field(default_factory=Counter)
    """Images that would lead to no decision on the line, by the reason's first words."""
    elsewhere: Counter[str] = field(default_factory=Counter)
    """Images that were judged as another category than theirs, by that of theirs."""


def learn_thresholds(
    engine: Engine,
    data: Path,
    images: Sequence[Path],
    category: Sequence[str],
    on_progress: ProgressCallback = silent,
) -> dict[str, Threshold]:
    """Learn the threshold of every category that has images: their largest score.

    An image counts for the category it was judged as: where the graph chooses the category
    itself, that is the threshold its score will meet on the line.

    Args:
        engine: runs the model file whose thresholds these will be.
        data: what the images' paths are relative to.
        images: held-out good images, relative to ``data``.
        category: each image's category, by name.
        on_progress: called after each image.

    Returns:
        Thresholds by category name, in the order of the engine's categories.

    Raises:
        ImageError: an image cannot be read.
    """
    judged = judge_good(engine, data, images, category, on_progress=on_progress)
    machine = f"{engine.info.precision} on {engine.info.device}"
    return {
        name: learn_threshold(parts, source=HELD_OUT, machine=machine)
        for name, parts in judged.parts.items()
        if parts
    }


def judge_good(
    engine: Engine,
    data: Path,
    images: Sequence[Path],
    category: Sequence[str | None],
    *,
    limits: ImageLimits | None = None,
    known_parts_only: bool = False,
    on_progress: ProgressCallback = silent,
) -> Judged:
    """Judge good images one at a time, as on the line.

    Args:
        engine: runs the model file whose thresholds will be learnt.
        data: what the images' paths are relative to.
        images: good images, relative to ``data``.
        category: each image's category, by name; ``None``: whatever the graph chooses.
        limits: images outside are unusable; ``None``: none is.
        known_parts_only: whether an image that shows no part the model knows is unusable.
        on_progress: called after each image.

    Raises:
        ImageError: an image cannot be read.
    """
    info = engine.info
    judged = Judged({name: [] for name in info.categories})
    # One at a time: an engine may round INT8 otherwise in a batch.
    for done, (path, name) in enumerate(zip(images, category, strict=True), start=1):
        on_progress(f"thresholds {info.precision}", done, len(images))
        frame = read_frame(data / path, info.input_side)
        unfit = fault(measure(frame), limits) if limits else None
        if unfit is not None:
            judged.unusable[unfit.partition(":")[0]] += 1
            continue
        given = None
        if info.category_mode == "input" and name is not None:
            given = np.array([info.categories.index(name)], np.int32)
        output = engine.run(frame[None], given)
        score, found = float(output["score"][0]), info.categories[int(output["category"][0])]
        if known_parts_only and not output["margin"][0] >= 0:
            judged.unusable["unknown part"] += 1
        elif not math.isfinite(score):
            judged.unusable["score is not a finite number"] += 1
        else:
            judged.parts[found].append(GoodPart(score, path.as_posix()))
            if name is not None and name != found:
                judged.elsewhere[name] += 1
    return judged
