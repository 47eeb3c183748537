"""A calibration set of the user's own: what may be wrong with it, said at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.thresholds import thresholds_of
from hvq_edge.calibration.images.calibration_image import CalibrationImage
from hvq_edge.common.wording import counted
from hvq_edge.data.content import hash_image
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import read_frame
from hvq_edge.errors import ImageError, InputError
from hvq_edge.runtime.engine import Engine
from hvq_edge.verdict.judgement import judgements, refusal, rule

OWN_SET_RULE = "all good images of the folder given with --calib, the categories in turn"
"""How these images were chosen, for the record."""
LEAST = 8
"""Good images that a category must have: with fewer, a tensor's range hangs on one image."""
_NAMED = 5
_SMALL = 32


class Suspicious(NamedTuple):
    """An image that does not look like a good one of its category."""

    path: Path
    reason: str


def own_calibration(
    folder: Path, categories: Sequence[str], threshold_digests: Collection[str] = ()
) -> list[CalibrationImage]:
    """Read a folder of good images.

    Args:
        folder: a data set in any layout that training reads.
        categories: the graph's categories; images of others are left out.
        threshold_digests: SHA-256 of the images that thresholds are learnt from.

    Returns:
        The images, categories in turn.

    Raises:
        InputError: names every fault: a category without images, or with fewer than
            :data:`LEAST`, unreadable images, images that set thresholds too.
        DatasetError: the folder has no layout that is known.
    """
    faults: list[str] = []
    unreadable: list[str] = []
    seen: Counter[str] = Counter()
    good = [p for p in find_dataset(folder).train_good() if p.category in categories]
    turns: list[tuple[int, int, CalibrationImage]] = []
    for image in good:
        try:
            read_frame(image.path, _SMALL)
            digest = hash_image(image.path)
        except ImageError:
            unreadable.append(image.path.name)
            continue
        place = (seen[image.category], categories.index(image.category))
        turns.append((*place, CalibrationImage(image.path, image.category, digest)))
        seen[image.category] += 1
    images = [image for _, _, image in sorted(turns)]
    for name in categories:
        if seen[name] < LEAST:
            had = f"only {counted(seen[name], 'good image')}" if seen[name] else "no good images"
            faults.append(f"{had} of {name}, at least {LEAST} are needed")
    if unreadable:
        faults.append(f"{_some(unreadable)} cannot be read")
    shared = [p.path.name for p in images if p.sha256 in threshold_digests]
    if shared:
        faults.append(f"{_some(shared)} also set thresholds, which would then look too good")
    if faults:
        raise InputError(
            f"{folder} is no calibration set: {'; '.join(faults)}.",
            next_step="put more good images in CATEGORY/train/good, or leave --calib out to use "
            "training images",
        )
    return images


def suspicious_images(
    engine: Engine, bundle: Bundle, images: Sequence[CalibrationImage]
) -> list[Suspicious]:
    """Find images that the float32 graph itself would not pass on the line.

    Args:
        engine: runs the float32 graph.
        bundle: its thresholds, and its checks of images.
        images: the set.
    """
    info = engine.info
    thresholds = thresholds_of(bundle, info.precision)
    found = []
    for image in images:
        given = None
        if info.category_mode == "input":
            given = np.array([info.categories.index(image.category)], np.int32)
        frame = read_frame(image.path, info.frame_shape)
        (judgement,) = judgements(engine.run(frame[None], given), info.categories)
        refused = refusal(judgement, bundle.checks.fault(frame, judgement))
        ruling = rule(refused, judgement.category, judgement.score, thresholds, info.precision)
        if refused is not None:
            found.append(Suspicious(image.path, f"leads to no decision ({refused})"))
        elif judgement.category != image.category:
            found.append(Suspicious(image.path, f"looks like {judgement.category}"))
        elif ruling.verdict == "reject":
            found.append(Suspicious(image.path, f"is rejected ({ruling.reason})"))
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
