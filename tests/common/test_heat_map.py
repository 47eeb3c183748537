"""Anomaly maps as images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.common.heat_map import heat_overlay, upsample_map
from hvq_edge.errors import InputError

SIDES = st.integers(1, 20)
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@settings(deadline=None)  # the first example imports torch
@given(SIDES, SIDES, st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_upsampling_equals_torch(h, w, height, width, seed):
    torch = pytest.importorskip("torch")
    maps = np.random.default_rng(seed).normal(size=(2, 1, h, w)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(maps), size=(height, width), mode="bilinear", align_corners=True
    )
    np.testing.assert_allclose(upsample_map(maps, height, width), expected.numpy(), atol=1e-5)


def test_upsampling_keeps_corners_and_planes():
    rows, columns = np.meshgrid(np.arange(3.0), np.arange(5.0), indexing="ij")
    plane = (2 * rows - columns).astype(np.float32)
    large = upsample_map(plane, 21, 17)
    rows, columns = np.meshgrid(np.linspace(0, 2, 21), np.linspace(0, 4, 17), indexing="ij")
    np.testing.assert_allclose(large, 2 * rows - columns, atol=1e-5)
    assert large[0, -1] == plane[0, -1]


@pytest.mark.parametrize(
    ("shape", "height", "width"), [((3,), 4, 4), ((0, 3), 4, 4), ((3, 3), 0, 4), ((3, 3), 4, -1)]
)
def test_upsampling_refuses_what_has_no_size(shape, height, width):
    with pytest.raises(InputError, match="cannot enlarge"):
        upsample_map(np.zeros(shape, np.float32), height, width)


def test_a_normal_map_leaves_the_image_alone():
    before = IMAGE.copy()
    shown = heat_overlay(IMAGE, np.full((4, 4), 0.2, np.float32), low=0.2, high=1.0)
    np.testing.assert_array_equal(shown, IMAGE)
    np.testing.assert_array_equal(IMAGE, before)


def test_only_the_hot_corner_is_coloured():
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 5.0
    shown = heat_overlay(np.full((48, 64, 3), 128, np.uint8), heat, low=0.0, high=1.0, opacity=1.0)
    red, green, blue = shown[0, -1].astype(int)
    assert red > 180
    assert red > green + 60 > blue
    np.testing.assert_array_equal(shown[24:, :32], 128)


def test_more_heat_is_more_change():
    grey = np.full((32, 32, 3), 100, np.uint8)
    changes = [
        np.abs(heat_overlay(grey, np.full((2, 2), v, np.float32), 0.0, 1.0).astype(int) - 100).sum()
        for v in (0.1, 0.3, 0.6, 1.0)
    ]
    assert changes == sorted(changes)
    assert changes[0] > 0


def test_a_view_that_is_not_contiguous_can_be_drawn_on():
    heat = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(
        heat_overlay(IMAGE[:, ::-1], heat, 0.0, 1.0),
        heat_overlay(IMAGE[:, ::-1].copy(), heat, 0.0, 1.0),
    )


@pytest.mark.parametrize(
    "change",
    [
        {"image": IMAGE.astype(np.float32)},
        {"image": IMAGE[..., 0]},
        {"image": IMAGE[:0]},
        {"anomaly_map": np.zeros((1, 4, 4), np.float32)},
        {"anomaly_map": np.full((4, 4), np.nan, np.float32)},
        {"high": 0.0},
        {"low": np.inf},
        {"opacity": 1.5},
    ],
)
def test_overlay_refuses_what_it_cannot_draw(change):
    arguments = {
        "image": IMAGE,
        "anomaly_map": np.zeros((4, 4), np.float32),
        "low": 0.0,
        "high": 1.0,
    }
    with pytest.raises(InputError, match="cannot draw"):
        heat_overlay(**(arguments | change))
