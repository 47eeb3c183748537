"""Learning from flipped images too, of categories where they look like good ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy.nearest_neighbour import Memory, fit_memory
from hvq_edge.training.batches import Images

FLIP_TOLERANCE = 0.08
"""How much farther than upright ones flipped good images may lie from the memory. Surfaces
without a direction measured 5 to 7 %: the backbone itself does not see a flipped image flipped.
Products with a direction measured 9 to 94 %."""
_BATCH = 8


def flip_distances(
    fit: Images,
    held_out: Images,
    flipped: Mapping[str, NDArray[np.float16]],
    categories: Sequence[str],
    device: str,
) -> dict[str, dict[str, float]]:
    """How much farther from good images' tokens flipped held-out images lie than upright ones.

    Args:
        fit: what the memory keeps (``nearest_neighbour.py``).
        held_out: upright.
        flipped: raw features of the held-out images by direction of the flip.
        categories: names in the order of the category index.
        device: where distances are computed.

    Returns:
        By direction and category: mean distance flipped / upright. About 1 where a flipped image
        could be one of the product's own.
    """

    def mean_distance(memory: Memory, features: NDArray[np.float16]) -> float:
        total = 0.0
        for start in range(0, len(features), _BATCH):
            raw = torch.from_numpy(features[start : start + _BATCH].astype(np.float32))
            total += float(memory.distance(raw.to(device)).sum())
        return total / len(features)

    ratios: dict[str, dict[str, float]] = {direction: {} for direction in flipped}
    for k, category in enumerate(categories):
        memory = fit_memory(fit.features[fit.category == k], device=device)
        own = held_out.category == k
        upright = mean_distance(memory, held_out.features[own])
        for direction, features in flipped.items():
            ratios[direction][category] = mean_distance(memory, features[own]) / upright
    return ratios


def allowed_flips(distances: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    """Categories that may be flipped, by direction.

    Args:
        distances: what :func:`flip_distances` gives.
    """
    return {
        direction: [name for name, ratio in ratios.items() if ratio <= 1 + FLIP_TOLERANCE]
        for direction, ratios in distances.items()
    }


def with_flips(
    fit: Images,
    flipped: Mapping[str, NDArray[np.float16]],
    chosen: Mapping[str, NDArray[np.bool_]],
) -> Images:
    """Add flipped images to those to learn from.

    Args:
        fit: upright.
        flipped: raw features of the chosen images, flipped, by direction.
        chosen: bool ``[images]`` by direction: which of ``fit`` they are.
    """
    features = [fit.features, *flipped.values()]
    category = [fit.category, *(fit.category[chosen[direction]] for direction in flipped)]
    return Images(np.concatenate(features), np.concatenate(category))
