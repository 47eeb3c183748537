"""Where codes begin, and new places for codes that no token chooses.

A code far from every token never moves: moving averages only pull codes that are used. So codes
start at tokens of their own category's images, and unused ones are placed again while training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvq_edge.model.codebook import Codebooks
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.training.batches import to_tensor

IMAGES_A_CATEGORY = 16
UNUSED_BELOW = 0.05
"""A code used less than this share of the average is unused."""


@torch.no_grad()
def start_codebooks(
    model: HVQTrans,
    features: NDArray[np.float16],
    category: NDArray[np.int64],
    seed: int,
    *,
    only: Sequence[int] | None = None,
) -> None:
    """Place every code at a random token of its own category's images.

    Args:
        model: changed in place.
        features: float16 ``[images, tokens, channels]``, raw.
        category: int64 ``[images]``.
        seed: for the choice of images and tokens.
        only: codes of these categories; ``None``: of all.
    """
    generator = torch.Generator().manual_seed(seed)
    _place(model, features, category, generator, only, all_codes=True)


@torch.no_grad()
def revive_codes(
    model: HVQTrans,
    features: NDArray[np.float16],
    category: NDArray[np.int64],
    seed: int,
    *,
    only: Sequence[int] | None = None,
) -> int:
    """Move unused codes to random tokens of their own category; return how many moved."""
    generator = torch.Generator().manual_seed(seed)
    return _place(model, features, category, generator, only, all_codes=False)


def _place(
    model: HVQTrans,
    features: NDArray[np.float16],
    category: NDArray[np.int64],
    generator: torch.Generator,
    only: Sequence[int] | None,
    *,
    all_codes: bool,
) -> int:
    training = model.training
    model.eval()
    moved = 0
    *lower, top = cast("list[Codebooks]", list(model.codebooks))
    for k in range(model.categories) if only is None else only:
        own = np.flatnonzero(category == k)
        chosen = torch.randperm(len(own), generator=generator)[:IMAGES_A_CATEGORY].numpy()
        standardised = to_tensor(model, features[np.sort(own[chosen])])
        outputs = model.encode(standardised)
        label = torch.full((len(chosen),), k, device=standardised.device)
        moved += _place_level(top, k, outputs[-1], generator, all_codes)
        top_codes = top(outputs[-1], label).codes
        for level, books in enumerate(lower):
            tokens = torch.cat([outputs[level], top_codes], dim=2)
            moved += _place_level(books, k, tokens, generator, all_codes)
    model.train(training)
    return moved


def _place_level(
    books: Codebooks, k: int, tokens: Tensor, generator: torch.Generator, all_codes: bool
) -> int:
    flat = tokens.flatten(0, 1)
    usage = books.usage[k]
    average = tokens.shape[1] / len(usage)  # tokens an image gives to a code
    slots = (
        torch.arange(len(usage))
        if all_codes
        else (usage.cpu() < UNUSED_BELOW * average).nonzero()[:, 0]
    )
    if len(slots) == 0:
        return 0
    draws = torch.randperm(len(flat), generator=generator)[: len(slots)]
    if len(draws) < len(slots):  # fewer tokens than codes: take some twice
        extra = torch.randint(len(flat), (len(slots) - len(draws),), generator=generator)
        draws = torch.cat([draws, extra])
    books.place(k, slots.to(flat.device), flat[draws.to(flat.device)], usage.new_tensor(average))
    return len(slots)
