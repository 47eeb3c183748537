"""A model with other categories: what is kept stays as it is, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from hvq_edge.model.codebook import Codebooks
from hvq_edge.model.hvq_trans import HVQTrans


@torch.no_grad()
def with_categories(model: HVQTrans, kept: Sequence[int | None]) -> HVQTrans:
    """Copy a model with more or fewer categories.

    Args:
        model: left as it is.
        kept: for each category of the result the one that it is now; ``None``: a new one, whose
            tensors are as a new model has them. Not as many as there are now.

    Returns:
        A model in eval mode, without gradients, on the same device.
    """
    if len(kept) == model.categories:
        raise ValueError("which axis is the category's shows in its length alone")
    books = cast(Codebooks, model.codebooks[0])
    changed = HVQTrans(
        model.settings,
        len(kept),
        codebook_decay=books.decay,
        codebook_epsilon=books.epsilon,
    )
    changed = changed.to(model.feature_mean.device).eval().requires_grad_(False)
    state = model.state_dict()
    for name, tensor in changed.state_dict().items():
        before = state[name]
        if before.shape == tensor.shape:
            tensor.copy_(before)
            continue
        (axis,) = (i for i, size in enumerate(tensor.shape) if size != before.shape[i])
        for place, source in enumerate(kept):
            if source is not None:
                tensor.select(axis, place).copy_(before.select(axis, source))
    return changed
