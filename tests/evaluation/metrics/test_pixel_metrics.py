"""Pixel metrics: against scikit-learn on all pixels at once, and AUPRO one threshold at a time."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

pytest.importorskip("sklearn")
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn import metrics

from hvq_edge.errors import InputError
from hvq_edge.evaluation.metrics.pixel_tally import PixelTally
from hvq_edge.evaluation.metrics.region_overlap import aupro, region_weights

quick = settings(deadline=None, max_examples=40)
BIN = 2.0**-11
"""Scores nearer than this share of themselves may fall into one bin."""


# --- the same, written out -----------------------------------------------------------------------


def regions_by_flooding(mask):
    """Sets of pixels that touch, corners included."""
    left = {tuple(place) for place in np.argwhere(mask)}
    regions = []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            row, column = edge.pop()
            region.add((row, column))
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            edge += near
        regions.append(region)
    return regions


def aupro_one_threshold_at_a_time(maps, masks, limit=0.3):
    """Area below straight lines between the curve's points, up to the limit, as a share of it."""
    regions = [
        [one_map[place] for place in region]
        for one_map, mask in zip(maps, masks, strict=True)
        for region in regions_by_flooding(mask)
    ]
    good = maps[~masks]
    area, before = 0.0, (0.0, 0.0)
    for threshold in sorted({float(score) for score in maps.ravel()}, reverse=True):
        rate = float(np.mean(good >= threshold))
        overlap = float(np.mean([np.mean(np.array(one) >= threshold) for one in regions]))
        (x, y), width = before, rate - before[0]
        if rate > limit:
            end = y + (overlap - y) * (limit - x) / width
            return (area + (limit - x) * (y + end) / 2) / limit
        area += width * (y + overlap) / 2
        before = (rate, overlap)
    return (area + (limit - before[0]) * before[1]) / limit


def tally_of(maps, masks):
    tally = PixelTally()
    for one_map, mask in zip(maps, masks, strict=True):
        tally.add(one_map, mask)
    return tally


def binned(scores):
    """Scores with all but the 11 leading fraction bits cut off, towards zero."""
    fraction, exponent = np.frexp(scores.astype(np.float64))
    return np.ldexp(np.trunc(fraction * 2**12) / 2**12, exponent)


@st.composite
def whole_numbers(draw):
    """Maps of few whole numbers (ties within and between), and masks; numbers have own bins."""
    shape = draw(array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6))
    maps = draw(arrays(np.float32, shape, elements=st.integers(-5, 6).map(float)))
    masks = draw(arrays(np.bool_, shape))
    assume(masks.any() and not masks.all())
    return maps, masks


@st.composite
def real_numbers(draw):
    """Maps as a network might give them, of any scale and offset, with defects that stand out."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    masks = np.zeros((3, 16, 16), dtype=np.bool_)
    for mask in masks[: draw(st.integers(1, 3))]:
        for _ in range(draw(st.integers(1, 4))):
            top, left = random.integers(0, 12, 2)
            mask[top : top + random.integers(1, 5), left : left + random.integers(1, 5)] = True
    offset = draw(st.sampled_from([0.0, 0.0, 20.0]))
    scale = draw(st.sampled_from([1e-3, 1.0, 1e5]))
    gap = draw(st.floats(0.0, 3.0))
    maps = (random.normal(size=masks.shape) + gap * masks + offset) * scale
    return maps.astype(np.float32), masks


# --- AUPRO ---------------------------------------------------------------------------------------


@quick
@given(whole_numbers())
def test_aupro_is_that_of_every_threshold(data):
    assert tally_of(*data).aupro() == pytest.approx(aupro_one_threshold_at_a_time(*data))


@settings(deadline=None, max_examples=20)
@given(real_numbers())
def test_aupro_of_real_maps_is_that_of_their_bins(data):
    maps, masks = data
    found = tally_of(maps, masks).aupro()
    assert found == pytest.approx(aupro_one_threshold_at_a_time(binned(maps), masks))
    assert found == pytest.approx(aupro_one_threshold_at_a_time(maps, masks), abs=5e-3)


@quick
@given(whole_numbers(), st.sampled_from([0.05, 0.3, 1.0]))
def test_aupro_up_to_any_rate(data, limit):
    maps, masks = data
    weights = np.stack([region_weights(mask).weights for mask in masks])
    levels = np.unique(maps)
    good = np.array([np.count_nonzero(maps[~masks] == level) for level in levels])
    overlap = np.array([weights[maps == level].sum() for level in levels])
    assert aupro(good, overlap, limit) == pytest.approx(
        aupro_one_threshold_at_a_time(maps, masks, limit)
    )


@quick
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9)))
def test_regions_touch_at_corners_and_weigh_one_each(mask):
    found = region_weights(mask)
    regions = regions_by_flooding(mask)
    assert found.regions == len(regions)
    assert not found.weights[~mask].any()
    for region in regions:
        assert [found.weights[place] for place in region] == [pytest.approx(1 / len(region))] * len(
            region
        )


def test_small_and_large_defects_count_alike():
    """One of four defects is found, the largest: most pixels, but a quarter of the overlap."""
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[:10, :10] = mask[15, 2] = mask[15, 6] = mask[15, 10] = True
    scores = np.zeros((20, 20))
    scores[:10, :10] = 1.0
    tally = tally_of(scores[None], mask[None])
    assert tally.regions == 4
    # From (0, 1/4) the line to (1, 1) reaches 1/4 + 0.3 * 3/4 at the limit.
    assert tally.aupro() == pytest.approx(0.25 + 0.3 * 0.75 / 2)
    assert tally.auroc() > 0.98


def test_perfect_inverted_and_constant_maps():
    mask = np.zeros((10, 10), dtype=np.bool_)
    mask[2:4, 3:6] = True
    perfect, inverted, constant = (
        tally_of([scores], [mask]) for scores in (mask * 1.0, mask * -1.0, np.full((10, 10), 0.7))
    )
    assert (perfect.aupro(), perfect.auroc(), perfect.best_f1()) == (1.0, 1.0, 1.0)
    assert (inverted.aupro(), inverted.auroc()) == (0.0, 0.0)
    assert constant.aupro() == pytest.approx(0.15)  # the diagonal, cut at 0.3
    assert constant.auroc() == 0.5
    assert constant.average_precision() == pytest.approx(0.06)
    assert constant.best_f1() == pytest.approx(2 * 0.06 / 1.06)


def test_only_the_order_of_scores_counts():
    random = np.random.default_rng(3)
    masks = random.random((2, 12, 12)) < 0.2
    maps = random.integers(-9, 10, masks.shape) + 3.0 * masks
    # Twice and a power of two away: no two of these fall into one bin, none is split.
    stretched = np.sign(maps) * 2.0 ** np.abs(maps) * 16
    assert tally_of(maps, masks).aupro() == pytest.approx(tally_of(stretched, masks).aupro())


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.1, np.nan])
def test_a_rate_that_is_none_is_refused(limit):
    with pytest.raises(InputError, match="above 0 to 1"):
        aupro(np.array([1]), np.array([1.0]), limit)


def test_overlap_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"\[2\] and \[1\]"):
        aupro(np.array([1, 2]), np.array([1.0]))
    for wrong in (np.zeros((2, 2)), np.zeros(4, dtype=np.bool_)):
        with pytest.raises(InputError, match="must be bool"):
            region_weights(wrong)


# --- AUROC, AP and F1-max ------------------------------------------------------------------------


def with_scikit_learn(maps, masks):
    """AUROC, AP and F1-max of all pixels at once."""
    scores, labels = maps.ravel(), masks.ravel()
    precision, recall, _ = metrics.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return (
        metrics.roc_auc_score(labels, scores),
        metrics.average_precision_score(labels, scores),
        f1.max(),
    )


def with_the_tally(maps, masks):
    tally = tally_of(maps, masks)
    return tally.auroc(), tally.average_precision(), tally.best_f1()


@quick
@given(whole_numbers())
def test_ties_count_as_in_scikit_learn(data):
    assert with_the_tally(*data) == pytest.approx(with_scikit_learn(*data))


@settings(deadline=None, max_examples=20)
@given(real_numbers())
def test_real_maps_give_scikit_learns_values_up_to_the_bins(data):
    maps, masks = data
    found = with_the_tally(maps, masks)
    assert found == pytest.approx(with_scikit_learn(binned(maps), masks))
    area, _, f1 = with_scikit_learn(maps, masks)
    good, defective = binned(maps[~masks]), binned(maps[masks])
    # A pair in one bin counts half, instead of 0 or 1.
    assert abs(found[0] - area) <= np.mean(good == defective[:, None]) / 2 + 1e-9
    # The best threshold moves to the lower edge of its bin, and calls all in it defective.
    in_one_bin = np.unique(binned(maps), return_counts=True)[1].max()
    called = masks.sum() + 1
    assert f1 * called / (called + in_one_bin) - 1e-9 <= found[2] <= f1 + 1e-9


def test_many_pixels_leave_little_to_the_bins():
    """As many as a category of ten images has; a fiftieth of them defective."""
    random = np.random.default_rng(0)
    masks = np.zeros((10, 224, 224), dtype=np.bool_)
    masks[:5, 40:72, 60:92] = True
    maps = (random.gamma(3.0, size=masks.shape) + 3.0 * masks).astype(np.float32)
    assert with_the_tally(maps, masks) == pytest.approx(with_scikit_learn(maps, masks), abs=2e-4)


# --- the tally -----------------------------------------------------------------------------------


def test_scores_of_any_size_keep_their_order():
    tally = PixelTally()
    scores = np.array([[-1e30, -2.0, -1.0, -1e-30, 0.0, 1e-30, 1.0, 2.0, 1e30]])
    tally.add(scores, np.arange(9)[None] >= 4)
    assert tally.auroc() == tally.aupro() == 1.0
    same = PixelTally()
    same.add(np.array([[0.0, -0.0]]), np.array([[True, False]]))
    assert same.auroc() == 0.5


@settings(deadline=None, max_examples=50)
@given(st.floats(2.0**-100, 2.0**100, width=32), st.floats(2 * BIN, 1.0), st.booleans())
def test_scores_further_apart_than_a_bin_do_not_tie(score, apart, negative):
    near, far = (np.float32(score), np.float32(score * (1 + apart)))
    low, high = (-far, -near) if negative else (near, far)
    tally = PixelTally()
    tally.add(np.array([[low, high]]), np.array([[False, True]]))
    assert tally.auroc() == 1.0


def test_without_good_or_without_defective_pixels_there_is_no_value():
    empty, all_good, all_defective = PixelTally(), PixelTally(), PixelTally()
    all_good.add(np.zeros((4, 4)), np.zeros((4, 4), bool))
    all_defective.add(np.zeros((4, 4)), np.ones((4, 4), bool))
    for tally in (empty, all_good, all_defective):
        for metric in (tally.auroc, tally.average_precision, tally.best_f1, tally.aupro):
            assert metric() is None
    assert (all_good.regions, all_defective.regions) == (0, 1)


def test_an_empty_mask_adds_good_pixels_only():
    mask = np.eye(4, dtype=np.bool_)
    tally = tally_of([np.eye(4), np.full((4, 4), 2.0)], [mask, np.zeros_like(mask)])
    assert tally.regions == 1
    assert tally.auroc() == pytest.approx(12 / 28)  # above the good of the first, below the second


@pytest.mark.parametrize(
    ("scores", "mask"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5), bool)),
        (np.zeros((4, 4)), np.zeros((4, 4))),
        (np.zeros(4), np.zeros(4, bool)),
    ],
)
def test_what_does_not_fit_is_refused(scores, mask):
    with pytest.raises(InputError, match="does not fit"):
        PixelTally().add(scores, mask)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    with pytest.raises(InputError, match="not finite"):
        PixelTally().add(np.array([[bad]]), np.array([[True]]))


def test_memory_does_not_grow_with_pixels_and_regions():
    """Ten images with some thousand regions each, against one."""
    random = np.random.default_rng(0)

    def held(images):
        tracemalloc.start()
        try:
            tally = PixelTally()
            for _ in range(images):
                tally.add(random.normal(size=(128, 128)), random.random((128, 128)) < 0.1)
            assert tally.regions > 500 * images
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    held(1)  # what is made once and kept, as caches
    one, ten = held(1), held(10)
    assert one < 30e6
    assert ten - one < 10_000
