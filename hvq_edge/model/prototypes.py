"""Prototypes of the features themselves: a closed-form level below the learnt codebooks.

The learnt levels rebuild a token from its whole image and need many epochs to be sharp; the
nearest of a category's own feature prototypes is sharp at once. It is the memory of PatchCore (Roth
et al., CVPR 2022) as one more vector-quantised level: k-means centres in whitened features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FeaturePrototypes(nn.Module):
    """One set of prototypes a category, with the whitening of its features.

    Args:
        categories: number of product categories.
        prototypes: in each set.
        channels: of a feature token.
        window: side of the neighbourhood that a token is averaged over first, in cells; odd.
    """

    whitening: Tensor  # [categories, channels, channels]
    shift: Tensor  # [categories, 1, channels]: minus the whitened mean
    centres: Tensor  # [categories, prototypes, channels], whitened

    def __init__(self, categories: int, prototypes: int, channels: int, window: int = 1) -> None:
        super().__init__()
        self.window = window
        self.register_buffer("whitening", torch.eye(channels).repeat(categories, 1, 1))
        self.register_buffer("shift", torch.zeros(categories, 1, channels))
        self.register_buffer("centres", torch.zeros(categories, prototypes, channels))

    def forward(self, features: Tensor, category: Tensor) -> Tensor:
        """Distance to the nearest prototype.

        Args:
            features: ``[batch, tokens, channels]``, standardised and of the length they have;
                tokens of a square grid, row-major, where the window is larger than one cell.
            category: int64 ``[batch]``.

        Returns:
            ``[batch, tokens]``, Euclidean in whitened features: about the square root of the
            number of channels for a token of a good image.
        """
        tokens = average_neighbours(features, self.window)
        white = tokens @ self.whitening[category] + self.shift[category]
        return nearest_distance(white, self.centres[category])


def average_neighbours(tokens: Tensor, window: int) -> Tensor:
    """Average each token with its neighbours on the grid, ``[b, l, c]`` -> same.

    At the rim over the neighbours that are there.

    Args:
        tokens: of a square grid, row-major.
        window: side of the neighbourhood in cells, odd; 1: the tokens as they are.
    """
    if window == 1:
        return tokens
    grid = math.isqrt(tokens.shape[1])
    image = tokens.transpose(1, 2).unflatten(2, (grid, grid))
    averaged = F.avg_pool2d(image, window, 1, window // 2, count_include_pad=False)
    return averaged.flatten(2).transpose(1, 2)


def largest_of_four(fine: Tensor) -> Tensor:
    """Give each token the largest distance of its four fine ones, ``[b, 4 * l]`` -> ``[b, l]``."""
    largest: Tensor = fine.unflatten(1, (-1, 4)).amax(2)
    return largest


def nearest_distance(tokens: Tensor, centres: Tensor) -> Tensor:
    """Euclidean distance of each token to the nearest centre.

    min ‖z − e‖² = ‖z‖² − 2 max (z·e − ‖e‖²/2): one matrix product, no table of differences.

    Args:
        tokens: ``[batch, tokens, channels]``.
        centres: ``[batch, centres, channels]``.

    Returns:
        ``[batch, tokens]``.
    """
    bias = centres.square().sum(2)[:, None] / 2
    near = torch.baddbmm(bias, tokens, centres.transpose(1, 2), beta=-1).amax(2)
    return (tokens.square().sum(2) - 2 * near).clamp_min(0).sqrt()
