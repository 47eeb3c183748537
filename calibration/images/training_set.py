"""Calibration images from the training images: balanced, and as different as they can be."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvq_edge.calibration.images.calibration_image import CalibrationImage
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.splits import check_unchanged
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.record import ImageRecord, RunRecord
from hvq_edge.training.features import cache_features

DEFAULT_COUNT = 128
TRAINING_SET_RULE = (
    "images that the model was fitted on (never those kept for thresholds or tests), the "
    "categories in turn; in each first the one nearest the category's mean, then always the one "
    "whose features lie farthest from all chosen before; as many as it takes until the ranges "
    "move by less than 1 %"
)
"""How these images were chosen, for the record."""
_AT_ONCE = 64


def training_set(
    run: Path,
    model: HVQTrans,
    record: RunRecord,
    data: Path,
    categories: Sequence[str],
    on_progress: ProgressCallback = silent,
) -> list[CalibrationImage]:
    """Choose calibration images among those that a model was fitted on, the most different first.

    Args:
        run: folder of the run.
        model: the run's model.
        record: the run's record.
        data: folder that the recorded paths are relative to.
        categories: images of other categories are left out.
        on_progress: called after each batch, if features are computed.

    Raises:
        DatasetError: an image is missing or was changed since the training.
        ImageError: an image cannot be read.
    """
    features = pooled_features(run, model, record, data, on_progress)
    fit = [image for image in record.images if image.use == "fit"]
    served = [image.category in categories for image in fit]
    own = [image for image, is_in in zip(fit, served, strict=True) if is_in]
    chosen = choose_calibration(own, features[served])
    check_unchanged(chosen, data)
    return [CalibrationImage(data / one.path, one.category, one.sha256) for one in chosen]


def choose_calibration(
    images: Sequence[ImageRecord],
    features: NDArray[np.float32],
    count: int = DEFAULT_COUNT,
) -> tuple[ImageRecord, ...]:
    """Order images so that any first part is balanced over categories and spread in each.

    Within a category by farthest-first traversal: after k images none of the others lies farther
    from a chosen one than twice what the best choice of k could reach (Gonzalez, "Clustering to
    minimize the maximum intercluster distance", 1985). The same image twice counts once.

    Args:
        images: the run's.
        features: float32 ``[images of use "fit", dimensions]``, in the order of ``images``, every
            dimension on one scale.
        count: how many images to return at most.
    """
    fit = [image for image in images if image.use == "fit"]
    rows: dict[str, dict[str, int]] = {}  # category -> SHA-256 -> row
    for row, image in enumerate(fit):
        rows.setdefault(image.category, {}).setdefault(image.sha256, row)
    orders = []
    for category in sorted(rows):
        own = [rows[category][digest] for digest in sorted(rows[category])]
        orders.append([fit[own[i]] for i in farthest_first(features[own], count)])
    in_turn = chain.from_iterable(zip_longest(*orders))
    return tuple(image for image in in_turn if image is not None)[:count]


def farthest_first(points: NDArray[np.float32], count: int) -> list[int]:
    """Order points: the one nearest the mean, then always the farthest from those before.

    Args:
        points: ``[n, dimensions]``, n above 0.
        count: how many to return at most.

    Returns:
        Indices; of equally far points the first.
    """
    points = np.asarray(points, np.float64)
    chosen = [int(np.argmin(np.square(points - points.mean(0)).sum(1)))]
    distance = np.square(points - points[chosen[0]]).sum(1)
    while len(chosen) < min(count, len(points)):
        distance[chosen[-1]] = -1  # never twice, even where all lie on one spot
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.square(points - points[chosen[-1]]).sum(1))
    return chosen


def pooled_features(
    run: Path,
    model: HVQTrans,
    record: RunRecord,
    data: Path,
    on_progress: ProgressCallback = silent,
) -> NDArray[np.float32]:
    """Return the mean and maximum over each image's tokens, every dimension on one scale.

    Read from the training's feature cache; where that is gone, computed again and not kept.

    Args:
        run: folder of the run.
        model: the run's model.
        record: the run's record.
        data: folder that the recorded paths are relative to.
        on_progress: called after each batch, if features are computed.

    Returns:
        ``[images of use "fit", 2 * channels]``, in the order of ``record.images``.

    Raises:
        ImageError: an image cannot be read.
    """
    fit = [image for image in record.images if image.use == "fit"]
    with tempfile.TemporaryDirectory() as scratch:
        kept = run if (run / "features.npy").is_file() else Path(scratch)
        features, _ = cache_features(kept, model, data, fit, record.backbone_weights, on_progress)
        parts = []
        for start in range(0, len(features), _AT_ONCE):
            batch = features[start : start + _AT_ONCE].astype(np.float32)
            parts.append(np.concatenate([batch.mean(1), batch.max(1)], axis=1))
        del features  # the map is closed before its file goes
    pooled = np.concatenate(parts)
    spread = pooled.std(0)
    spread[spread == 0] = 1  # a dimension that never varies is 0 after the mean is off
    scaled: NDArray[np.float32] = (pooled - pooled.mean(0)) / spread
    return scaled
