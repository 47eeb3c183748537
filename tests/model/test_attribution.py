"""A map taken apart is the map, and what its cells are nearest to is nearest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.small_graphs import SIDE, small_model

from hvq_edge.model.attribution import attribute, codebook_names, part_names

FRAMES = torch.from_numpy(
    np.random.default_rng(3).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
)
CATEGORY = torch.tensor([0, 1, 1])
KINDS = [
    {},
    {"transport_weight": 0.0, "prototypes": 0},
    {"transport_levels": (0.5, 0.0, 0.5), "prototype_window": 3},
    {"fine_prototypes": 12},
    {"whiten_distance": False, "normalise_tokens": False, "prototype_weight": 0.0},
]


@pytest.fixture(params=KINDS, ids=str)
def model(request):
    return small_model(**request.param)


@torch.inference_mode()
def test_the_parts_add_up_to_the_map(model):
    found = attribute(model, FRAMES, CATEGORY)
    judged = model(FRAMES, CATEGORY)
    assert len(found.parts) == len(part_names(model.settings))
    assert all(float(part.abs().max()) > 0 for part in found.parts)
    torch.testing.assert_close(found.parts.sum(0).float(), judged["map"], rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_what_is_nearest_is_nearest(model):
    found = attribute(model, FRAMES, CATEGORY).nearest
    assert len(found) == len(codebook_names(model.settings))
    codes = model(FRAMES, CATEGORY)["codes"]
    standardised = model.standardise(model.raw_features(FRAMES))
    tokens = model.reconstruct(model.normalise(standardised), CATEGORY).tokens
    for level, own in enumerate(tokens):
        assert torch.equal(found[level].code.int(), codes[:, level])
        every = torch.cdist(own.double(), model.codes_of(level, CATEGORY).double())
        torch.testing.assert_close(found[level].distance.double(), every.amin(2), atol=1e-3, rtol=0)
    if model.prototypes is not None:
        distance = model.prototypes(model.coarse(standardised), CATEGORY)
        torch.testing.assert_close(found[-1].distance, distance, atol=1e-2, rtol=1e-3)
