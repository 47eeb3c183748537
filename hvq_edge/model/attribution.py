"""What an image's map is made of, cell by cell, and which code and prototype each cell is nearest.

The same steps as :meth:`HVQTrans.judge`, with what that adds up kept apart.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hvq_edge.model.hvq_trans import HVQTrans, Reconstruction
from hvq_edge.model.prototypes import FeaturePrototypes, average_neighbours
from hvq_edge.run.settings import ModelSettings

PROTOTYPES = "prototypes"
FINE_PROTOTYPES = "fine prototypes"


class Nearest(NamedTuple):
    """The nearest code of each token, in one codebook."""

    code: Tensor
    """int64 ``[batch, tokens]``."""
    distance: Tensor
    """``[batch, tokens]``, Euclidean: of prototypes in whitened features."""


class Attribution(NamedTuple):
    """Where maps come from."""

    parts: Tensor
    """float64 ``[parts, batch, grid, grid]``: their sum is the anomaly map. In the order of
    :func:`part_names`."""
    nearest: tuple[Nearest, ...]
    """In the order of :func:`codebook_names`."""


def part_names(settings: ModelSettings) -> tuple[str, ...]:
    """What the parts of the map are, those alone that have a weight."""
    transports = [
        f"transport {name}"
        for name, weight in zip(level_names(settings), settings.transport_weights, strict=False)
        if weight
    ]
    names = ["distance", *transports]
    if settings.prototypes and settings.prototype_weight:
        names.append(PROTOTYPES)
    if settings.fine_prototypes and settings.fine_prototype_weight:
        names.append(FINE_PROTOTYPES)
    return tuple(names)


def level_names(settings: ModelSettings) -> tuple[str, ...]:
    """The levels' names, level 0 first."""
    return (*(f"level {level}" for level in range(settings.layers)), "top")


def codebook_names(settings: ModelSettings) -> tuple[str, ...]:
    """The names of all that a token is compared with: the levels, then the prototypes."""
    return (*level_names(settings), *([PROTOTYPES] if settings.prototypes else ()))


@torch.no_grad()
def attribute(model: HVQTrans, frames: Tensor, category: Tensor) -> Attribution:
    """Take the maps of frames apart.

    Args:
        model: in eval mode.
        frames: uint8 ``[batch, height, width, 3]``, RGB.
        category: int64 ``[batch]``.
    """
    standardised = model.standardise(model.raw_features(frames))
    rebuilt = model.reconstruct(model.normalise(standardised), category)
    parts = model.map_parts(standardised, rebuilt, category).double()
    in_use = [weight > 0 for weight in model.part_weights]
    weighted = model.weighted_parts(parts, category)[in_use]
    nearest = _nearest(model, standardised, rebuilt, category)
    return Attribution(model.tiles.stitch(weighted), nearest)


@torch.no_grad()
def nearest_codes(model: HVQTrans, frames: Tensor, category: Tensor) -> tuple[Nearest, ...]:
    """Find the nearest code and prototype of each token; arguments as for :func:`attribute`."""
    standardised = model.standardise(model.raw_features(frames))
    rebuilt = model.reconstruct(model.normalise(standardised), category)
    return _nearest(model, standardised, rebuilt, category)


def _nearest(
    model: HVQTrans, standardised: Tensor, rebuilt: Reconstruction, category: Tensor
) -> tuple[Nearest, ...]:
    found = []
    for level, tokens in enumerate(rebuilt.tokens):
        index = rebuilt.codes[:, level]
        codes = model.codes_of(level, category)
        chosen = torch.gather(codes, 1, index[..., None].expand(-1, -1, codes.shape[2]))
        found.append(Nearest(index, (tokens - chosen).norm(dim=2)))
    if model.prototypes is not None:
        tokens = model.coarse(standardised)
        found.append(_nearest_prototype(model.prototypes, tokens, category))
    if model.tiling.count > 1:
        cells = torch.from_numpy(model.tiling.tokens_of_cells())
        found = [Nearest(*(one[:, cells] for one in nearest)) for nearest in found]
    return tuple(found)


def _nearest_prototype(
    prototypes: FeaturePrototypes, standardised: Tensor, category: Tensor
) -> Nearest:
    tokens = average_neighbours(standardised, prototypes.window)
    white = tokens @ prototypes.whitening[category] + prototypes.shift[category]
    distance, index = torch.cdist(white, prototypes.centres[category]).min(2)
    return Nearest(index, distance)
