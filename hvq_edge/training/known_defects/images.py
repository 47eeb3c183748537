"""A run's known defects: their features, masks and pseudo-defects, and what is learnt from them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.progress import ProgressCallback
from hvq_edge.common.wording import counted
from hvq_edge.data.findings import LEAST_KNOWN_DEFECTS
from hvq_edge.data.images import fit_image, read_frame, read_mask
from hvq_edge.data.pseudo_defects import KINDS, Pixels, large_pseudo_defect, pseudo_defect
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.record import ImageRecord, KnownDefect, RunRecord
from hvq_edge.run.settings import Settings
from hvq_edge.run.tiling import GRID_STRIDE, Tiling
from hvq_edge.training.batches import Images
from hvq_edge.training.features import cache_features, feature_pass
from hvq_edge.training.known_defects.metric import LARGE, SMALL, Known, fit_known_defects

logger = logging.getLogger(__name__)

PSEUDO_DEFECTS, LEAST_PSEUDO_DEFECTS = 4, 60
"""Of each held-out image, half of them large, and of all of a category at least."""


def learn_known_defects(
    run: Path,
    record: RunRecord,
    model: HVQTrans,
    fit: Images,
    varied: Sequence[Images],
    held_out: Images,
    on_progress: ProgressCallback,
) -> RunRecord:
    """Fit the metric to known defects; return the record with what that did."""
    known, names = record.known_defects, record.categories
    enough = {
        name for name in names if sum(one.category == name for one in known) >= LEAST_KNOWN_DEFECTS
    }
    if not enough:
        return record
    data = Path(str(record.data))
    features, _ = cache_features(
        run,
        model,
        data,
        known,
        record.backbone_weights,
        on_progress,
        name="features_known_defects",
    )
    index = np.array([names.index(one.category) for one in known])
    others = [one for one in record.images if one.use == "held_out" and one.category in enough]
    found = fit_known_defects(
        model,
        Known(
            Images(features, index),
            coverage(known, data, model.tiling),
            [one.defect for one in known],
        ),
        fit,
        varied,
        held_out,
        pseudo_defects_of(model, others, names, data),
    )
    judged = list(known)
    for k, learnt in found.items():
        for place, score in zip(np.flatnonzero(index == k), learnt.scores, strict=True):
            judged[place] = judged[place].model_copy(update={"score": float(score)})
    used = {names[k]: learnt.use for k, learnt in found.items()}
    return record.model_copy(update={"known_defects": tuple(judged), "known_defects_used": used})


def warn_of_unused(known: Sequence[KnownDefect], settings: Settings) -> None:
    """Say which known defects nothing is learnt from."""
    if known and not settings.model.whiten_distance:
        logger.warning("Known defects are not used: the settings whiten no distance.")
        return
    counts = Counter(one.category for one in known)
    for name, count in counts.items():
        if count < LEAST_KNOWN_DEFECTS:
            logger.warning(
                "%s: %s not used: from %d on they are learnt from.",
                name,
                counted(count, "known defect is", "known defects are"),
                LEAST_KNOWN_DEFECTS,
            )


def coverage(known: Sequence[KnownDefect], data: Path, tiling: Tiling) -> NDArray[np.float32]:
    """Return how much of each token's cell lies under the masks, ``[images, tokens]``.

    Raises:
        ImageError: a mask cannot be read.
    """
    found = np.zeros((len(known), tiling.tokens), np.float32)
    rows, columns = tiling.map_shape
    for row, one in zip(found, known, strict=True):
        if one.mask is not None:
            mask = read_mask(data / one.mask, *tiling.frame_shape)
            cells = mask.reshape(rows, GRID_STRIDE, columns, GRID_STRIDE).mean((1, 3))
            row[:] = cells.ravel()[tiling.cells_of_tokens()]
    return found


def pseudo_defects_of(
    model: HVQTrans, held_out: Sequence[ImageRecord], categories: Sequence[str], data: Path
) -> tuple[Images, Images]:
    """Compute raw features of held-out images with small, and with large pseudo-defects.

    Args:
        model: its backbone is used.
        held_out: held-out good images, of the categories that need them.
        categories: names in the order of the category index.
        data: what the images' paths are relative to.

    Raises:
        ImageError: an image cannot be read.
    """
    features: dict[str, list[NDArray[np.float16]]] = {SMALL: [], LARGE: []}
    index: list[int] = []
    shape, kinds = model.tiling.frame_shape, list(KINDS)
    side = max(shape)  # they are drawn in squares
    compute = feature_pass(model, PSEUDO_DEFECTS * len(held_out))
    for name in sorted({one.category for one in held_out}):
        own = [one for one in held_out if one.category == name]
        each = max(PSEUDO_DEFECTS, -(-LEAST_PSEUDO_DEFECTS // len(own))) // 2
        for place, one in enumerate(own):
            frame, other = (read_frame(data / image.path, side) for image in (one, own[place - 1]))
            drawn: dict[str, list[Pixels]] = {SMALL: [], LARGE: []}
            for number in range(each):
                seed = (int(one.sha256[:8], 16), number)
                kind = kinds[(place + number) % len(kinds)]
                drawn[SMALL].append(pseudo_defect(frame, other, kind, seed).frame)
                drawn[LARGE].append(large_pseudo_defect(frame, other, seed))
            for size, frames in drawn.items():
                fitted = [fit_image(frame, shape) for frame in frames]
                features[size].append(compute(fitted))
            index += [categories.index(name)] * each
    small, large = (
        Images(np.concatenate(found), np.array(index, dtype=np.int64))
        for found in features.values()
    )
    return small, large
