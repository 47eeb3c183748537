"""Anomaly maps as images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hvq_edge.common.heat_map import (
    HeatScale,
    draw_outlines,
    heat_overlay,
    legend_bar,
    legend_gradient,
    position,
    score_map,
    upsample_map,
    window_means,
)
from hvq_edge.errors import InputError

SIDES = st.integers(1, 20)
SCALE = HeatScale(threshold=1.0, typical=0.2)
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


def red(image: np.ndarray) -> np.ndarray:
    """Which pixels are clearly red."""
    r, g, b = np.moveaxis(image.astype(int), 2, 0)
    return (r > g + 60) & (r > b + 60) & (g < 80)


MAPS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 15), st.integers(1, 15)),
    elements=st.floats(-20, 20, width=32),
)


@settings(deadline=None, max_examples=60)
@given(MAPS, st.floats(-5, 5), st.floats(-10, 10))
def test_the_score_map_is_on_the_scale_of_the_score(anomaly_map, level, threshold):
    """Whatever level the model takes off: its highest value is the score, at the best window."""
    enlarged = upsample_map(anomaly_map, *(16 * side for side in anomaly_map.shape))
    means = window_means(enlarged)
    score = float(means.max()) - level
    scores = score_map(anomaly_map, score)
    assert scores.shape == enlarged.shape
    assert scores.max() == pytest.approx(score, abs=1e-4)
    np.testing.assert_allclose(scores[8:-7, 8:-7], means - level, atol=1e-4)
    assert (scores[:8] == scores[8]).all()


@settings(deadline=None, max_examples=60)
@given(MAPS, st.floats(-5, 5), st.floats(-10, 10), st.none() | st.floats(-10, 10))
def test_what_passes_has_no_red_and_what_rejects_has(anomaly_map, level, threshold, typical):
    score = float(upsample_map(anomaly_map, 64, 64).max()) - level
    grey = np.full((16 * anomaly_map.shape[0], 16 * anomaly_map.shape[1], 3), 90, np.uint8)
    shown = heat_overlay(grey, anomaly_map, score, HeatScale(threshold, typical))
    if not score > threshold:
        assert not red(shown).any()
    elif score > threshold + 1e-3:
        assert red(shown).any()
    assert not red(heat_overlay(grey, anomaly_map, score, HeatScale(None, typical))).any()


def test_red_begins_at_the_threshold_exactly():
    below, at, above = (np.float32(1.0) + np.float32(step) for step in (-1e-6, 0.0, 1e-6))
    heats = SCALE.heats(np.array([0.1, 0.2, below, at, above, 2.0, 9.0], np.float32))
    assert heats.tolist()[:2] == [0, 0]
    assert (heats[2:4] <= 127).all()
    assert heats[4] == 128
    assert heats[5:].tolist() == [255, 255]


def test_a_typical_score_above_the_threshold_is_not_believed():
    scores = np.array([0.4, 0.5, 0.9, 1.1], np.float32)
    unknown = HeatScale(1.0).heats(scores)
    np.testing.assert_array_equal(HeatScale(1.0, 1.5).heats(scores), unknown)
    assert unknown[0] == unknown[1] == 0 < unknown[2] < 128 <= unknown[3]


def test_heat_has_no_blocks():
    """One hot cell: neighbouring pixels never differ much, but for the step to red."""
    heat = np.zeros((14, 14), np.float32)
    heat[6, 7] = 3.0
    grey = np.full((896, 896, 3), 128, np.uint8)
    peak = float(window_means(upsample_map(heat, 224, 224)).max())
    shown = heat_overlay(grey, heat, peak, HeatScale(peak, 0.0)).astype(int)
    for axis in (0, 1):
        assert np.abs(np.diff(shown, axis=axis)).max() <= 6


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_reject_is_always_right_of_the_middle(score, threshold):
    place = position(score, threshold)
    assert 0.0 <= place <= 1.0
    assert (place > 0.5) <= (score > threshold)


def test_legends_show_the_colours_of_the_overlay():
    bar = legend_bar(SCALE, 3, 201, (40, 40, 40))
    assert bar.shape == (3, 201, 3)
    assert not red(bar[:, :101]).any()
    assert red(bar[:, 101:]).all()
    np.testing.assert_array_equal(bar[:, :20], 40)  # up to the typical score
    gradient = legend_gradient()
    assert gradient.startswith("linear-gradient(to right, rgb(255 226 60 / 0%) 0%")
    assert "rgb(255 150 0 / 75%) 50%, rgb(214 8 24 / 75%) 50%" in gradient


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_outlines_are_seen_on_any_part(ground):
    image = np.full((40, 40, 3), ground, np.uint8)
    draw_outlines(image, [np.array([[10, 10], [30, 10], [30, 30], [10, 30]], np.int32)])
    across = image[20, :, 0].astype(int)
    assert across[10] - across[9] > 100, "light beside dark"
    assert np.abs(across - ground).max() > 100
    assert (image[18:22, 18:22] == ground).all()


def test_a_normal_map_leaves_the_image_alone():
    before = IMAGE.copy()
    shown = heat_overlay(IMAGE, np.full((4, 4), 0.2, np.float32), 0.2, SCALE)
    np.testing.assert_array_equal(shown, IMAGE)
    np.testing.assert_array_equal(IMAGE, before)


def test_only_the_hot_corner_is_coloured():
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 5.0
    score = float(window_means(upsample_map(heat, 64, 64)).max())
    shown = heat_overlay(np.full((48, 64, 3), 128, np.uint8), heat, score, SCALE)
    assert red(shown[:4, -4:]).all()
    np.testing.assert_array_equal(shown[24:, :32], 128)


def test_more_heat_is_more_change():
    grey = np.full((32, 32, 3), 100, np.uint8)
    changes = [
        np.abs(heat_overlay(grey, np.full((2, 2), v, np.float32), v, SCALE).astype(int) - 100).sum()
        for v in (0.1, 0.3, 0.6, 1.0)
    ]
    assert changes == sorted(changes)
    assert changes[-1] > changes[1] > 0


def test_a_view_that_is_not_contiguous_can_be_drawn_on():
    heat = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(
        heat_overlay(IMAGE[:, ::-1], heat, 1.2, SCALE),
        heat_overlay(IMAGE[:, ::-1].copy(), heat, 1.2, SCALE),
    )


@pytest.mark.parametrize(
    "change",
    [
        {"image": IMAGE.astype(np.float32)},
        {"image": IMAGE[..., 0]},
        {"image": IMAGE[:0]},
        {"anomaly_map": np.zeros((1, 4, 4), np.float32)},
        {"anomaly_map": np.full((4, 4), np.nan, np.float32)},
        {"score": np.inf},
        {"score": np.nan},
    ],
)
def test_overlay_refuses_what_it_cannot_draw(change):
    arguments = {
        "image": IMAGE,
        "anomaly_map": np.zeros((4, 4), np.float32),
        "score": 0.0,
        "scale": SCALE,
    }
    with pytest.raises(InputError, match="cannot draw"):
        heat_overlay(**(arguments | change))


@pytest.mark.parametrize("values", [(np.inf, None), (1.0, np.nan)])
def test_a_scale_is_finite(values):
    with pytest.raises(InputError, match="cannot draw"):
        HeatScale(*values)
