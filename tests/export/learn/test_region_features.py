"""Regions as the network sees them: which tokens count, and by how much."""

from __future__ import annotations

import numpy as np
import pytest

from hvq_edge.bundle.opened import open_bundle
from hvq_edge.export.learn.region_features import RegionFeatures, token_weights
from hvq_edge.run.tiling import Tiling


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.int32)


def test_tokens_count_by_the_share_of_their_cell():
    tiling = Tiling(64)
    weights = token_weights(box(0, 0, 47, 31), (128, 128), tiling).reshape(4, 4)
    assert weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(weights[0, :2] / weights[0, 0], [1.0, 0.5], atol=0.05)
    assert np.count_nonzero(weights) == 2, "24 x 16 pixels of the frame, from its corner"
    assert not token_weights(box(900, 900, 950, 950), (128, 128), tiling).any()
    assert token_weights(box(5, 5, 5, 5), (128, 128), tiling).any(), "one pixel is a region"


def test_of_tiles_those_count_that_see_the_region():
    tiling = Tiling(64, rows=1, columns=2, overlap=2)  # 4 x 6 cells, two of them seen twice
    weights = token_weights(box(0, 0, 31, 63), (64, 96), tiling).reshape(2, 4, 4)
    assert np.count_nonzero(weights[0]) == 8
    assert np.count_nonzero(weights[1]) == 0
    both = token_weights(box(32, 0, 63, 63), (64, 96), tiling).reshape(2, 4, 4)
    assert np.count_nonzero(both[0][:, 2:]) == np.count_nonzero(both[1][:, :2]) == 8


def test_a_region_is_described_by_its_own_tokens(small_bundle):
    bundle = open_bundle(small_bundle)
    features = RegionFeatures(bundle)
    category = bundle.manifest.categories[0]
    side = bundle.manifest.frame_shape[0]
    image = np.random.default_rng(0).integers(0, 256, (2 * side, 2 * side, 3), dtype=np.uint8)
    tokens = features.tokens(image, category)
    assert len(tokens) == bundle.manifest.tiling.tokens
    whole = features(image, category, box(0, 0, 2 * side - 1, 2 * side - 1))
    np.testing.assert_allclose(whole, tokens.mean(0), rtol=1e-3, atol=1e-4)
    corner = features(image, category, box(0, 0, 31, 31))
    np.testing.assert_allclose(corner, tokens[0], rtol=1e-4, atol=1e-5)
    assert features(image, "nut", box(0, 0, 31, 31)) is None
    assert features(image, category, box(9000, 9000, 9010, 9010)) is None
