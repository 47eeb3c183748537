"""Which training images set the INT8 ranges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest

import numpy as np
from numpy.typing import NDArray

from hvq_edge.run.record import ImageRecord

DEFAULT_COUNT = 128
RULE = (
    "images that the model was fitted on (never those kept for thresholds or tests), the "
    "categories in turn; in each first the one nearest the category's mean, then always the one "
    "whose features lie farthest from all chosen before; as many as it takes until the ranges "
    "move by less than 1 %"
)


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
        images: of a run.
        features: float ``[images of use "fit", dimensions]``: a row for each of those, in the
            order of ``images``; dimensions of one scale.
        count: how many in all, at most.
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
