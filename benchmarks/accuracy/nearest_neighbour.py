"""The nearest-neighbour baseline: how far a token is from every token of good images.

PatchCore's memory (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022)
on the same backbone features as ours: one memory a category of tokens of its good images; the map
is the distance to the nearest. What differs from the paper, so that only the method is compared and
not the network: the taps and grid of HVQ-Trans, features standardised by channel, a random choice
of tokens instead of the greedy coreset (which the paper finds better for small memories), and the
score of HVQ-Trans instead of the reweighted maximum.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvq_edge.errors import InputError
from hvq_edge.model.prototypes import average_neighbours, nearest_distance

MEMORY = 8_000
"""Vectors in a category's memory."""
POOLING = 3
"""Side of PatchCore's neighbourhood, in cells."""
_SMALLEST_STD = 1e-3
"""Relative to the mean over channels, as our own standardisation has it."""


class Memory(NamedTuple):
    """What is kept of a category."""

    mean: Tensor
    """``[channels]``."""
    std: Tensor
    """``[channels]``."""
    vectors: Tensor
    """``[vectors, channels]``, standardised."""
    pooled: bool
    """Whether features are averaged over neighbours first."""

    def distance(self, raw: Tensor) -> Tensor:
        """Distance to the nearest vector of the memory.

        Args:
            raw: ``[batch, tokens, channels]``, before any standardisation; tokens of a square
                grid, row-major. Channels beyond those of the memory, fine tokens, are left out.

        Returns:
            ``[batch, grid, grid]``.
        """
        own = raw[..., : len(self.mean)]
        tokens = average_neighbours(own, POOLING) if self.pooled else own
        standardised = ((tokens - self.mean) / self.std).flatten(0, 1)
        nearest = nearest_distance(standardised[None], self.vectors[None])
        grid = grid_of(raw)
        return nearest.view(-1, grid, grid)


def fit_memory(
    raw: NDArray[np.float16],
    *,
    pooled: bool = False,
    vectors: int = MEMORY,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Memory:
    """Keep random tokens of good images.

    Args:
        raw: float16 ``[images, tokens, channels]``: one category's features before any
            standardisation.
        pooled: average each token over its 3x3 neighbours first, as PatchCore does.
        vectors: kept at most.
        seed: of the choice.
        device: of the result.

    Raises:
        InputError: no image.
    """
    if not len(raw):
        raise InputError("a nearest-neighbour memory needs at least one image.")
    features = torch.from_numpy(np.asarray(raw, dtype=np.float32))
    tokens = (average_neighbours(features, POOLING) if pooled else features).flatten(0, 1)
    std, mean = torch.std_mean(tokens.double(), dim=0, correction=0)
    # Tokens that are all the same tell nothing of the scale.
    std = std.clamp_min(_SMALLEST_STD * std.mean()) if std.any() else torch.ones_like(std)
    mean, std = mean.float(), std.float()
    chosen = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))[:vectors]
    kept = (tokens[chosen] - mean) / std
    return Memory(mean.to(device), std.to(device), kept.to(device), pooled)


def grid_of(raw: Tensor) -> int:
    """Cells of a side of a square grid of ``[batch, tokens, channels]``."""
    return math.isqrt(raw.shape[1])
