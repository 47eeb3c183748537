"""Pseudo-defects: what they change, what they leave alone, and that a seed is a seed."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.images import make_texture
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from hvq_edge.data.pseudo_defects import KINDS, VISIBLE, margin, pseudo_defect
from hvq_edge.errors import InputError

kinds = pytest.mark.parametrize("kind", KINDS)


def texture(seed: int, side: int = 96) -> np.ndarray:
    return make_texture(seed, height=side, width=side)


@kinds
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), side=st.sampled_from([32, 64, 97]))
def test_an_image_changes_at_the_mask_and_nowhere_else(kind, seed, side):
    good, other = texture(1, side), texture(2, 50)
    damaged = pseudo_defect(good, other, kind, seed)
    assert damaged.frame.shape == good.shape
    assert damaged.frame.dtype == np.uint8
    assert damaged.mask.shape == good.shape[:2]
    assert damaged.mask.any()
    assert not damaged.mask.all()
    far = distance_transform_edt(~damaged.mask) > margin(side)
    np.testing.assert_array_equal(damaged.frame[far], good[far])


@kinds
def test_nearly_every_one_can_be_seen(kind):
    good, other = texture(1), texture(2, 50)
    changes = []
    for seed in range(40):
        damaged = pseudo_defect(good, other, kind, seed)
        change = np.abs(damaged.frame.astype(float) - good).max(2)
        changes.append(change[damaged.mask].mean())
    assert np.mean(np.array(changes) >= VISIBLE) > 0.9


@kinds
def test_a_seed_gives_the_same_pixels_and_another_seed_others(kind):
    good, other = texture(1), texture(2, 50)
    kept = good.copy(), other.copy()
    first, again = (pseudo_defect(good, other, kind, (3, 4)) for _ in range(2))
    np.testing.assert_array_equal(first.frame, again.frame)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert not np.array_equal(first.mask, pseudo_defect(good, other, kind, (3, 5)).mask)
    np.testing.assert_array_equal(good, kept[0])  # arguments are left as they are
    np.testing.assert_array_equal(other, kept[1])


def test_a_seed_damages_the_same_place_at_every_size():
    """Of a stain, whose first draw shows at any size."""
    centres, areas = [], []
    for side in (96, 192):
        mask = pseudo_defect(texture(1, side), texture(2, 50), "stain", 5).mask
        rows, columns = mask.nonzero()
        centres.append((rows.mean() / side, columns.mean() / side))
        areas.append(mask.mean())
    np.testing.assert_allclose(centres[0], centres[1], atol=0.01)
    assert areas[0] == pytest.approx(areas[1], rel=0.25)


def test_only_texture_needs_the_other_image():
    good = texture(1)
    for kind in KINDS:
        one, two = (pseudo_defect(good, texture(seed, 50), kind, 7).frame for seed in (2, 3))
        assert np.array_equal(one, two) == (kind != "texture")


@pytest.mark.parametrize(
    ("frame", "other", "kind", "message"),
    [
        (texture(1), texture(2), "smell", "no pseudo-defect 'smell'"),
        (texture(1).astype(float), texture(2), "stain", "must be uint8"),
        (texture(1), texture(2)[..., 0], "texture", "must be uint8"),
        (texture(1)[:50], texture(2), "stain", "square"),
        (texture(1, 31), texture(2), "stain", "32 pixels"),
    ],
)
def test_what_cannot_be_damaged(frame, other, kind, message):
    with pytest.raises(InputError, match=message):
        pseudo_defect(frame, other, kind, 0)
