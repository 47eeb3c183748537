"""A calibration set of the user's own: what may be wrong with it, said at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hvq_edge.bundle.manifest import Threshold
from hvq_edge.data.content import hash_picture
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import read_frame
from hvq_edge.errors import InputError, PictureError
from hvq_edge.runtime.engine import Engine

RULE = "all good pictures of the folder given with --calib, the categories in turn"
LEAST = 8
"""Good pictures a category: with fewer, the range of a tensor hangs on one picture."""
_NAMED = 5
_SMALL = 32


class OwnPicture(NamedTuple):
    """A picture of the set."""

    path: Path
    category: str
    sha256: str


class Suspicious(NamedTuple):
    """A picture that does not look like a good one of its category."""

    path: Path
    reason: str


def own_calibration(
    folder: Path, categories: Sequence[str], threshold_digests: Collection[str] = ()
) -> list[OwnPicture]:
    """Read a folder of good pictures.

    Args:
        folder: of any layout that training reads.
        categories: that the graph serves; pictures of others are left out.
        threshold_digests: SHA-256 of the pictures that thresholds are learnt from.

    Returns:
        The pictures, categories in turn.

    Raises:
        InputError: names every fault: a category without pictures, or with fewer than
            :data:`LEAST`, unreadable pictures, pictures that set thresholds too.
        DatasetError: the folder has no layout that is known.
    """
    faults: list[str] = []
    unreadable: list[str] = []
    seen: Counter[str] = Counter()
    good = [p for p in find_dataset(folder).train_good() if p.category in categories]
    turns: list[tuple[int, int, OwnPicture]] = []
    for picture in good:
        try:
            read_frame(picture.path, _SMALL)
            digest = hash_picture(picture.path)
        except PictureError:
            unreadable.append(picture.path.name)
            continue
        place = (seen[picture.category], categories.index(picture.category))
        turns.append((*place, OwnPicture(picture.path, picture.category, digest)))
        seen[picture.category] += 1
    pictures = [picture for _, _, picture in sorted(turns)]
    for name in categories:
        if seen[name] < LEAST:
            had = f"only {seen[name]}" if seen[name] else "no"
            faults.append(f"{had} good pictures of {name}, at least {LEAST} are needed")
    if unreadable:
        faults.append(f"{_some(unreadable)} cannot be read")
    shared = [p.path.name for p in pictures if p.sha256 in threshold_digests]
    if shared:
        faults.append(f"{_some(shared)} also set thresholds, which would then look too good")
    if faults:
        raise InputError(
            f"{folder} is no calibration set: {'; '.join(faults)}.",
            next_step="put more good pictures in CATEGORY/train/good, or leave --calib out to use "
            "training pictures",
        )
    return pictures


def suspicious_pictures(
    engine: Engine, pictures: Sequence[OwnPicture], thresholds: Mapping[str, Threshold]
) -> list[Suspicious]:
    """Find pictures that the float32 graph itself would not pass.

    Args:
        engine: runs the float32 graph.
        pictures: of the set.
        thresholds: of that graph, by category.
    """
    info = engine.info
    found = []
    for picture in pictures:
        given = None
        if info.category_mode == "input":
            given = np.array([info.categories.index(picture.category)], np.int32)
        output = engine.run(read_frame(picture.path, info.input_side)[None], given)
        category = info.categories[int(output["category"][0])]
        score = float(output["score"][0])
        threshold = thresholds.get(category)
        if category != picture.category:
            found.append(Suspicious(picture.path, f"looks like {category}"))
        elif threshold is not None and score > threshold.value:
            reason = f"scores {score:.2f}, above the threshold of {threshold.value:.2f}"
            found.append(Suspicious(picture.path, reason))
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
