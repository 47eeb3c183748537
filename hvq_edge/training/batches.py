"""Batches of cached features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvq_edge.model.hvq_trans import HVQTrans


@dataclass(frozen=True)
class Images:
    """Cached features of a set of images."""

    features: NDArray[np.float16]
    """``[images, tokens, channels]``, raw."""
    category: NDArray[np.int64]
    """``[images]``."""


def to_tensor(model: HVQTrans, raw: NDArray[np.float16]) -> Tensor:
    """Bring raw cached features to the model's device as :meth:`HVQTrans.features` gives them.

    Args:
        model: whose statistics and device are used.
        raw: float16 ``[b, l, c]``.

    Returns:
        float32 ``[b, l, c]``.
    """
    return model.normalise(standardised(model, raw))


def standardised(model: HVQTrans, raw: NDArray[np.float16]) -> Tensor:
    """Return what :func:`to_tensor` does, with tokens that keep their length."""
    tensor = torch.from_numpy(raw.astype(np.float32)).to(model.feature_mean.device)
    return model.standardise(tensor)


def shuffled_batches(count: int, size: int, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """Yield the image indices of each batch of an epoch.

    The order depends on seed and epoch alone, so a resumed training goes on as it would have.
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    for start in range(0, count, size):
        yield np.sort(order[start : start + size])  # sorted: the memory map is read in order
