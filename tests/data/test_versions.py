"""Versions of a training image: small changes that leave a good part a good part."""

from __future__ import annotations

import numpy as np
import pytest

from hvq_edge.data.versions import KINDS, blurred, contrasted, version_of

SIDE = 64


def part() -> np.ndarray:
    """Of fine grain: the slightest blur shows."""
    noise = np.random.default_rng(7).integers(60, 180, (96, 131, 3))
    return np.ascontiguousarray(noise, dtype=np.uint8)


def test_the_first_version_is_the_image_itself():
    image = part()
    assert version_of(image, SIDE, 0, seed=3) is image


@pytest.mark.parametrize("number", range(1, 2 * len(KINDS) + 1))
def test_a_version_differs_and_comes_again(number):
    given = part()
    found = version_of(given, SIDE, number, seed=3)
    np.testing.assert_array_equal(given, part())
    assert found.dtype == np.uint8
    assert found.shape == given.shape
    assert found.flags.c_contiguous
    assert not np.array_equal(found, given)
    np.testing.assert_array_equal(version_of(given, SIDE, number, seed=3), found)
    assert not np.array_equal(version_of(given, SIDE, number, seed=4), found)


def test_strengths_are_drawn_between_their_ends(monkeypatch):
    name, kind = "moved", KINDS["moved"]
    seen = []
    monkeypatch.setitem(KINDS, name, kind._replace(change=lambda i, _, s: seen.append(s) or i))
    for seed in range(200):
        version_of(part(), SIDE, 1 + list(KINDS).index(name), seed)
    drawn = np.array(seen).T
    for values, (low, high) in zip(drawn, kind.strengths, strict=True):
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high >= values.max() > high - 0.1 * (high - low)


def test_blur_and_contrast_keep_the_mean():
    image = part()
    assert blurred(image, 2, 2).std() < 0.8 * image.std()
    assert contrasted(image, 0.2).std() == pytest.approx(1.2 * image.std(), rel=0.02)
    for changed in (blurred(image, 2, 2), contrasted(image, 0.2)):
        assert changed.mean() == pytest.approx(image.mean(), rel=0.01)
