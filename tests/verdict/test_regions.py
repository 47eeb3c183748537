"""Regions: where the map is above the limit, in pixels of the image and in mm²."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hvq_edge.verdict.regions import CELL, MOST_REGIONS, Region, find_regions

SIDE = 14


def score_window() -> np.ndarray:
    """float64 [209, 14]: enlarge one axis with aligned corners, then average 16 pixels."""
    position = np.linspace(0.0, SIDE - 1.0, SIDE * CELL)
    below = np.minimum(position.astype(int), SIDE - 2)
    up = np.zeros((SIDE * CELL, SIDE))
    up[np.arange(SIDE * CELL), below] = 1 - (position - below)
    up[np.arange(SIDE * CELL), below + 1] = position - below
    return np.array([up[i : i + CELL].mean(0) for i in range(SIDE * CELL - CELL + 1)])


WINDOW = score_window()


def score_of(anomaly_map: np.ndarray, *, subtracted: bool) -> float:
    """The model's score in float64: the highest 16x16 average of the enlarged map."""
    averaged = WINDOW @ anomaly_map.astype(np.float64) @ WINDOW.T
    level = np.sort(anomaly_map.ravel())[SIDE * SIDE // 4 - 1] if subtracted else 0.0
    return float(averaged.max() - level)


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(np.float32, (SIDE, SIDE), elements=st.floats(-5, 50, width=32)),
    st.booleans(),
    st.floats(-3, 60),
)
def test_a_score_above_the_limit_has_a_region_and_one_within_has_none(anomaly_map, how, limit):
    score = score_of(anomaly_map, subtracted=how)
    regions = find_regions(anomaly_map, score, limit, 300, 400)
    assert bool(regions) == (score > limit)
    assert len(regions) <= MOST_REGIONS
    assert sum(region.area for region in regions) <= 300 * 400 + 1e-6
    if regions:
        assert regions[0].peak == pytest.approx(score, abs=1e-3)
    for region in regions:
        left, top, width, height = region.box
        assert left >= 0
        assert top >= 0
        assert left + width <= 400
        assert top + height <= 300
        assert 0 < region.area <= width * height
        assert limit < region.peak <= score + 1e-3
        assert (region.contour.min(0) >= [left - 1, top - 1]).all()
        assert (region.contour.max(0) <= [left + width, top + height]).all()


def test_a_score_that_exceeds_the_limit_by_a_hair_has_a_region():
    """By less than float32 holds beside the map's own values."""
    (region,) = find_regions(np.ones((SIDE, SIDE), np.float32), 4.4e-16, 0.0, 300, 400)
    assert region.peak == 4.4e-16
    assert region.area == pytest.approx(300 * 400, rel=0.02)


def test_of_what_exceeds_the_limit_by_a_hair_the_strongest_is_the_region():
    """Two places are above it as pixels, and by rounding none is as an average."""
    anomaly_map = np.zeros((SIDE, SIDE), np.float32)
    anomaly_map[2, 2], anomaly_map[SIDE - 3, SIDE - 3] = 0.9, 1.0
    peak = max(one.peak for one in find_regions(anomaly_map, 1.0, 0.2, 300, 400))
    beyond = float(np.nextafter(np.float32(peak), np.float32(np.inf)))
    (region,) = find_regions(anomaly_map, beyond, float(np.nextafter(beyond, 0.0)), 300, 400)
    assert region.peak == beyond
    assert region.contour.min() > 100, "the weaker one is in the other corner"


def test_two_defects_in_pixels_and_mm():
    anomaly_map = np.full((SIDE, SIDE), 3.0, np.float32)  # the level of the image
    anomaly_map[2:5, 3:6] += 4.0
    anomaly_map[10:12, 9:13] += 3.0
    score = score_of(anomaly_map, subtracted=True)
    first, second = find_regions(anomaly_map, score, 2.0, 448, 896, mm_per_pixel=0.1)
    assert first.peak == pytest.approx(score, abs=1e-4), "on the scale of the score"
    assert second.peak == pytest.approx(3.0, abs=1e-4)
    # Where the enlarged map crosses 2: half a cell beyond the block of 4, a third beyond that of 3.
    cell_x, cell_y = 896 / 13, 448 / 13  # aligned corners: 13 steps from edge to edge
    assert first.area == pytest.approx((2 + 1.0) ** 2 * cell_x * cell_y, rel=0.12)
    assert first.area_mm2 == pytest.approx(first.area * 0.01)
    left, top, width, height = first.box
    assert left + width / 2 == pytest.approx(4 * cell_x, abs=6)
    assert top + height / 2 == pytest.approx(3 * cell_y, abs=4)
    inside = (first.contour >= [left - 1, top - 1]) & (
        first.contour <= [left + width, top + height]
    )
    assert inside.all()
    told = first.to_json()
    assert told["box"] == [left, top, width, height]
    assert told["area_mm2"] == pytest.approx(first.area_mm2, abs=1e-3)


def test_a_map_of_tiles_may_be_wider_than_high():
    anomaly_map = np.zeros((7, 14), np.float32)
    anomaly_map[2:5, 9:12] = 4.0
    (region,) = find_regions(anomaly_map, 4.0, 2.0, 448, 896)
    left, top, width, height = region.box
    assert left + width / 2 == pytest.approx(10 * 896 / 13, abs=6)
    assert top + height / 2 == pytest.approx(3 * 448 / 6, abs=6)


def test_what_a_record_says_of_a_region():
    contour = np.array([[1, 2], [3, 4]], np.int32)
    region = Region((1, 2, 3, 4), 12.34, 0.123456, 3.12345678, contour)
    said = {"box": [1, 2, 3, 4], "area": 12.3, "area_mm2": 0.1235, "peak": 3.123457}
    assert region.to_json() == {**said, "contour": [[1, 2], [3, 4]]}
    assert replace(region, area_mm2=None).to_json()["area_mm2"] is None


def test_a_corner_that_no_window_sees_enough_of_is_no_region():
    anomaly_map = np.zeros((SIDE, SIDE), np.float32)
    anomaly_map[0, 0] = 4.0  # above the limit as a pixel, not as an average
    anomaly_map[6:9, 6:9] = 3.0
    (region,) = find_regions(anomaly_map, score_of(anomaly_map, subtracted=False), 2.5, 224, 224)
    assert region.box[0] > 50


def test_a_map_of_noise_makes_no_endless_line():
    rng = np.random.default_rng(0)
    anomaly_map = rng.normal(size=(SIDE * 2, SIDE * 2)).astype(np.float32)
    regions = find_regions(anomaly_map, 5.0, 0.1, 448, 448)
    assert len(regions) <= MOST_REGIONS
    peaks = [region.peak for region in regions]
    assert peaks == sorted(peaks, reverse=True)
