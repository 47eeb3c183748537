"""An image's score, from its anomaly map: the highest window, and the level that is left out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

POOLING_SIDE = 16
"""An image's score is the maximum of its map averaged over windows of this side, in pixels."""


def image_level(anomaly_map: Tensor) -> Tensor:
    """The map's lower quartile, ``[b, l]`` -> ``[b, 1]``: its level where nothing is wrong.

    Unlike the mean or the median it holds for defects of up to three quarters of the image.
    """
    quarter = quarter_of(anomaly_map.shape[1])
    return anomaly_map.topk(quarter, dim=1, largest=False).values[:, -1:]


def quarter_of(tokens: int) -> int:
    """Tokens of which the largest is the lower quartile."""
    return max(1, tokens // 4)


def score_window(grid: int, scale: int, pooling: int) -> Tensor:
    """Return the matrix that upsamples one axis bilinearly and averages windows over it.

    Args:
        grid: cells of the axis.
        scale: upsampling factor, ``align_corners=True``.
        pooling: side of the averaging window, stride 1.

    Returns:
        float32 ``[grid * scale - pooling + 1, grid]``.
    """
    eye = torch.eye(grid, dtype=torch.float64)[None]  # rows are the cells' unit vectors
    up = F.interpolate(eye, size=grid * scale, mode="linear", align_corners=True)
    return F.avg_pool1d(up, pooling, stride=1)[0].T.contiguous().to(torch.float32)
