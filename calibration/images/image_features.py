"""What an image looks like to the backbone, as one vector."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.record import RunRecord
from hvq_edge.training.features import cache_features

_AT_ONCE = 64


def pooled_features(
    run: Path,
    model: HVQTrans,
    record: RunRecord,
    data: Path,
    on_progress: ProgressCallback = silent,
) -> NDArray[np.float32]:
    """Mean and maximum over an image's tokens, each dimension of one scale.

    Read from the training's feature cache; where that is gone, computed again and not kept.

    Args:
        run: folder of the run.
        model: of the run.
        record: of the run.
        data: what the images' paths are relative to.
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
